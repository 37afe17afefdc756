"""How each cause looks: one planted fault for each, and what the report says of it."""

from __future__ import annotations
