"""The rules, one module per topic; importing this package registers all of them."""

from irv2caffe.diagnose.rules import (  # noqa: F401  # isort: skip
    statistics,
    running_statistics,
    data,
    phases,
    classes,
    validation,
    speed,
    learning_rate,
    measured,
    measured_data,
    measured_net,
    numerics,
    optimizer,
    scaling,
    schedule,
)
