from mtlcli.training.rhythm import Rhythm


def test_steps_and_minutes() -> None:
    now = [0.0]
    assert [step for step in range(1, 9) if Rhythm("3 steps").due(step)] == [3, 6]
    assert all(Rhythm("1 step").due(step) for step in range(1, 9))
    assert not any(Rhythm("epoch").due(step) for step in range(1, 9))
    minutes = Rhythm("2 minutes", clock=lambda: now[0])
    due = []
    for second in range(0, 600, 50):
        now[0] = float(second)
        if minutes.due(1):
            due.append(second)
    assert due == [150, 300, 450]
