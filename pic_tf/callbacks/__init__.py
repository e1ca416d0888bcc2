"""Keras callbacks of a run, each of which can be used alone."""

CHECK_EVERY = (
    16  # calls of a callback between two checks that wait for the device, or for other workers
)
