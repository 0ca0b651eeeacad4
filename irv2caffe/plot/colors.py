"""The colours of figures and reports."""

from __future__ import annotations

# Paul Tol's bright colours, which stay apart for colour-blind eyes and in print.
COLORS = ("#4477AA", "#EE6677", "#228833", "#AA3377", "#66CCEE", "#CCBB44")
# Those behind: other lightness, so that no reference is taken for a run.
REFERENCE_COLORS = ("#B08D57", "#7A9E7E", "#9A8BB5", "#8C8C8C")
LOSS_COLOR = "#6B6B6B"
LOST_COLOR = "#BB0000"
