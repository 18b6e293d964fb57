"""Distortions: what happens to media between the camera and a detector, one function each.

:mod:`~gas.media.distortions.geometry`, :mod:`~gas.media.distortions.colour` and
:mod:`~gas.media.distortions.damage` hold the elementary ones of pictures, :mod:`~gas.media.distortions.video`
the one that only clips have (H.264) and :mod:`~gas.media.distortions.sound` with
:mod:`~gas.media.distortions.codecs` those of sound: pure functions with explicit parameters.
:mod:`~gas.media.distortions.table` is the one list of them, with the levels 0-3 and the seeded draw;
:mod:`~gas.media.distortions.apply` carries a draw out, masks included.
The fixed chains of the robustness pass are in :mod:`gas.media.transforms`.

Nothing is imported here: the modules load OpenCV and FFmpeg.
"""
