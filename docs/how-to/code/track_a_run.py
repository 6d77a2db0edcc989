import numpy as np

import everloop

with everloop.start_run("pricing", params={"depth": 6}, tags={"team": "blue"}) as run:
    for epoch in range(100):
        run.log_metrics({"loss": 1.0 / (epoch + 1), "rate": 0.1}, step=epoch)
    run.log_metric("note", float("nan"))  # NaN and the infinities are kept as they are
    run.log_text("Looks good.", "notes/review.txt")
    run.log_dict({"features": ["age", "income"]}, "setup.json")
    run.log_table([{"row": 1, "error": 0.2}, {"row": 2, "error": 0.4}], "worst_rows")
    run.log_image(np.linspace(0.0, 1.0, 64).reshape(8, 8), "images/ramp.png")
