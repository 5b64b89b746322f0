"""The main job on a rehearsal stage: sandboxes for the vendors, a real relay on loopback, a clock that jumps."""
