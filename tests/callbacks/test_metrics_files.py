"""Metrics files of older versions, with fewer columns, go on."""

import tf_keras as keras

from pic_tf.callbacks.metrics_files import COLUMNS, MetricsFile, last_figures, read_metrics
from pic_tf.training.plots import plot_training

OLD = (
    "epoch,step,loss,accuracy,learning_rate,knn,probe\n1,10,3.5,0.1,0.2,,\n2,20,3.0,0.2,0.1,0.4,\n"
)


def test_an_older_file_gets_the_new_columns(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text(OLD)
    assert last_figures(path, ["knn", "rankme"]) == {"knn": 0.4}
    plot_training(path, tmp_path / "old.png", {"knn": {"random network": 0.1}})
    file = MetricsFile(path)
    model = keras.Sequential([keras.layers.Dense(1, input_shape=[1])])
    model.compile("sgd", "mse")
    model.optimizer.iterations.assign(30)
    file.set_model(model)
    file.on_epoch_end(2, {"loss": 2.5, "rankme": 7.25, "elsewhere": 1.0})
    rows = read_metrics(path)
    assert list(rows[0]) == COLUMNS and COLUMNS[-3] == "rankme"
    assert [row["rankme"] for row in rows] == ["", "", "7.25"]
    assert [row["knn"] for row in rows] == ["", "0.4", ""] and rows[2]["step"] == "30"
    plot_training(path, tmp_path / "new.png", {})
    assert (tmp_path / "old.png").exists() and (tmp_path / "new.png").exists()


def test_a_run_whose_figures_a_full_disk_has_swallowed_ends_without_their_picture(tmp_path):
    for text in (None, "", ",".join(COLUMNS) + "\n"):
        if text is not None:
            (tmp_path / "metrics.csv").write_text(text)
        plot_training(tmp_path / "metrics.csv", tmp_path / "curves.png", {})
    assert not (tmp_path / "curves.png").exists()
