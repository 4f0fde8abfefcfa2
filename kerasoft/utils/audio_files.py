"""Batches of the recordings in a folder."""

from __future__ import annotations

import functools
import wave
from typing import Any

import numpy as np

from .batches import stack
from .directories import dataset_of_files


def audio_dataset_from_directory(
    directory: Any,
    labels: Any = "inferred",
    label_mode: str | None = "int",
    class_names: Any = None,
    batch_size: int | None = 32,
    sampling_rate: int | None = None,
    output_sequence_length: int | None = None,
    ragged: bool = False,
    shuffle: bool = True,
    seed: int | None = None,
    validation_split: float | None = None,
    subset: str | None = None,
    follow_links: bool = False,
    verbose: bool = True,
) -> Any:
    """Batches of `.wav` recordings (-1 .. 1, float32), and their classes, from folders named like the classes.

    Shapes: sound (batch, steps, channels); labels as in `image_dataset_from_directory`.

    Args:
        sampling_rate: in hertz; recordings of another rate are resampled linearly.
        output_sequence_length: steps to cut or fill up to; by default a batch is as long as its longest recording.
        ragged: refused: there are no ragged tensors here.
        the others: as in `image_dataset_from_directory`.
    """
    if ragged and output_sequence_length is not None:
        raise ValueError("Cannot set both `ragged` and `output_sequence_length`")
    if ragged:
        raise ValueError(
            "`ragged=True` needs ragged tensors, which kerasoft does not have; set `output_sequence_length`"
        )
    if sampling_rate is not None:
        if not isinstance(sampling_rate, int):
            raise ValueError(f"`sampling_rate` should have an integer value. Received: sampling_rate={sampling_rate}")
        if sampling_rate <= 0:
            raise ValueError(f"`sampling_rate` should be higher than 0. Received: sampling_rate={sampling_rate}")
    return dataset_of_files(
        directory,
        functools.partial(read_wav, rate=sampling_rate, steps=output_sequence_length),
        "audio",
        (".wav",),
        labels=labels,
        label_mode=label_mode,
        class_names=class_names,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        validation_split=validation_split,
        subset=subset,
        follow_links=follow_links,
        verbose=verbose,
        collate=_padded,
    )


def read_wav(path: Any, rate: int | None = None, steps: int | None = None) -> np.ndarray:
    """float32[steps, channels] in -1 .. 1 of a PCM file of 8, 16, 24 or 32 bits."""
    with wave.open(str(path), "rb") as file:
        width, channels, own_rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
        data = file.readframes(file.getnframes())
    if width == 1:
        sound = (np.frombuffer(data, "uint8").astype("float32") - 128) / 128
    elif width == 3:
        parts = np.frombuffer(data, "uint8").reshape(-1, 3)
        filled = np.concatenate([np.zeros((len(parts), 1), "uint8"), parts], 1)
        sound = (filled.reshape(-1).view("<i4") / 2.0**31).astype("float32")
    else:
        sound = (np.frombuffer(data, f"<i{width}") / 2.0 ** (8 * width - 1)).astype("float32")
    sound = sound.reshape(-1, channels)
    if rate is not None and rate != own_rate and len(sound):
        places = np.arange(int(len(sound) * rate / own_rate)) * own_rate / rate
        sound = np.stack([np.interp(places, np.arange(len(sound)), line) for line in sound.T], 1).astype("float32")
    if steps is not None:
        sound = np.pad(sound[:steps], ((0, max(steps - len(sound), 0)), (0, 0)))
    return sound


def _padded(samples: list) -> Any:
    """A batch as long as its longest recording."""
    sounds = [sample[0] if isinstance(sample, tuple) else sample for sample in samples]
    longest = max(len(sound) for sound in sounds)
    sounds = [np.pad(sound, ((0, longest - len(sound)), (0, 0))) for sound in sounds]
    if isinstance(samples[0], tuple):
        return stack(sounds), stack([sample[1] for sample in samples])
    return stack(sounds)
