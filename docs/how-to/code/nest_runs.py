import everloop

with everloop.start_run("folds", name="all folds") as run:
    for fold in range(3):
        with run.child(f"fold {fold}", params={"fold": fold}) as child:
            child.log_metric("score", 0.9 - fold / 100)
    everloop.log_metric("mean score", 0.89)  # to the active run

with everloop.start_run(resume=run.id) as again:
    again.log_metric("mean score", 0.90)  # the next step of the same metric
