"""Base of the sections of an experiment."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Base of the sections: strict types, no unknown keys, no NaN or infinity."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
    location: ClassVar[str] = ""  # key path of the section, with a trailing dot

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a private attribute; for others, raise AttributeError with the override that makes the change."""
        if not name.startswith("_"):
            text = str(value) if isinstance(value, str | int | float) else "VALUE"
            raise AttributeError(
                f"an experiment can't be changed; pass the override '{self.location}{name}={text}' to "
                "load_experiment, build or train instead"
            )
        super().__setattr__(name, value)
