"""Being written by the CutPaste helper (started 03:13)."""
