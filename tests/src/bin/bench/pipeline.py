"""A pipeline of arrays, of what such pipelines do: algebra, transforms, sorting, files."""

import os
import tempfile

import numpy

random = numpy.random.default_rng(1)
with tempfile.TemporaryDirectory() as folder:
    path = os.path.join(folder, "part.npy")
    total = 0.0
    for _ in range(8):
        matrix = random.random((300, 300))
        product = matrix @ matrix.T + numpy.eye(300)
        total += numpy.linalg.slogdet(product)[1]
        signal = random.random(1 << 18)
        spectrum = numpy.fft.rfft(signal)
        total += numpy.abs(spectrum).sum()
        numpy.save(path, numpy.sort(signal))
        total += numpy.load(path).mean()
print(f"{total:.6e}")
