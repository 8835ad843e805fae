"""What a verdict was worth, by name, as `key_frames.csv` has it."""

#: By the label (1 abnormal, 0 normal, None unknown) and whether it was flagged;
#: the most instructive first.
OUTCOMES: dict[tuple[int | None, bool], str] = {
    (1, False): "missed",
    (0, True): "false_alarm",
    (1, True): "found",
    (0, False): "passed",
    (None, True): "flagged",
    (None, False): "unflagged",
}
