"""Construction and checks of a run before its first step."""
