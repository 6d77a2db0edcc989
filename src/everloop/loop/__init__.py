"""The loop: alarm, retrain, gate, release, promote or roll back, by itself and within limits."""
