import mlflow
from mlflow import MlflowClient
from sklearn.datasets import make_classification
from sklearn.linear_model import LogisticRegression

rows, labels = make_classification(n_samples=500, random_state=1)
mlflow.set_experiment("churn")

with mlflow.start_run(run_name="logistic") as run:
    model = LogisticRegression(C=0.5).fit(rows, labels)
    mlflow.log_params({"C": 0.5, "rows": len(rows)})
    for step in range(3):
        mlflow.log_metric("accuracy", model.score(rows, labels), step=step)
    mlflow.log_dict({"classes": model.classes_.tolist()}, "classes.json")
    mlflow.sklearn.log_model(model, "model", pip_requirements=["scikit-learn"])

version = mlflow.register_model(f"runs:/{run.info.run_id}/model", "churn")
MlflowClient().set_registered_model_alias("churn", "candidate", version.version)

loaded = mlflow.pyfunc.load_model("models:/churn@candidate")
best = mlflow.search_runs(filter_string="metrics.accuracy > 0.5 or params.C = '0.5'")
print("version", version.version, "predicts", loaded.predict(rows[:3]), "of", len(best), "runs")
