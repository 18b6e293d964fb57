"""Media as arrays: decode with limits, preprocess, distort, hash.

One definition each, shared by everything that looks at a medium: :mod:`gas.media.limits` says what is too
much, :mod:`gas.media.image`, :mod:`gas.media.audio` and :mod:`gas.media.video` decode bytes from anywhere and
raise nothing but :class:`gas.errors.MediaRejected`, :mod:`gas.media.transforms` holds the distortions and
:mod:`gas.media.hashing` the exact and the perceptual hash.

Nothing is imported here: the modules load Pillow, OpenCV and FFmpeg.
"""
