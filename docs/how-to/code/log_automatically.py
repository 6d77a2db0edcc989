from sklearn.datasets import make_regression
from sklearn.linear_model import Ridge

import everloop

everloop.autolog()

inputs, target = make_regression(n_samples=200, n_features=5, random_state=1)
Ridge(alpha=0.5).fit(inputs, target)  # a run of its own
with everloop.start_run("by hand"):
    Ridge(alpha=2.0).fit(inputs, target)  # a part of this run

everloop.autolog(disable=True)
