from mtlcli.training.checkpoint.rotation import CheckpointSchedule


def test_steps_and_minutes() -> None:
    now = [0.0]
    assert [step for step in range(1, 9) if CheckpointSchedule("3 steps").due(step)] == [3, 6]
    assert all(CheckpointSchedule("1 step").due(step) for step in range(1, 9))
    assert not any(CheckpointSchedule("epoch").due(step) for step in range(1, 9))
    minutes = CheckpointSchedule("2 minutes", clock=lambda: now[0])
    due = []
    for second in range(0, 600, 50):
        now[0] = float(second)
        if minutes.due(1):
            due.append(second)
    assert due == [150, 300, 450]


def test_an_interval_longer_than_an_epoch_is_noted() -> None:
    assert "50 steps, but an epoch has 21" in str(CheckpointSchedule("50 steps").note(21))
    assert [CheckpointSchedule(every).note(21) for every in ("21 steps", "epoch", "90 minutes")] == [None] * 3
