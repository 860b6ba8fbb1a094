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
