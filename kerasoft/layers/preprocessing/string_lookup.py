"""StringLookup: strings to indices of a vocabulary."""

from __future__ import annotations

from .index_lookup import IndexLookup


class StringLookup(IndexLookup):
    """Strings to whole numbers, or back.

    Args:
        max_tokens: size of the vocabulary at most, special tokens included.
        num_oov_indices: indices for tokens out of the vocabulary; with several, their hash decides; 0 refuses them.
        mask_token: gets the index 0 in mode ``int`` and leaves no trace in the other modes.
        oov_token: what an unknown index becomes when `invert` is set.
        vocabulary: a list, an array, or the path of a file with a token a line; None to `adapt`.
        idf_weights: for mode ``tf_idf`` with a vocabulary: a factor a token.
        invert: indices to strings.
        output_mode: ``int``, ``one_hot``, ``multi_hot``, ``count`` or ``tf_idf``.
        pad_to_max_tokens: whether encoded rows have `max_tokens` columns whatever the vocabulary's size.
        sparse: in a model, encoded results are sparse rows, for SparseDense; in calls on arrays they are dense.
        encoding: of the strings; UTF-8.
        salt: of SipHash, for several OOV indices.

    >>> import kerasoft as ks
    >>> layer = ks.layers.StringLookup()
    >>> layer.adapt(["a", "b", "a"])
    >>> layer.get_vocabulary(), layer(["b", "z"]).tolist()
    (['[UNK]', 'a', 'b'], [2, 0])
    """

    def __init__(
        self,
        max_tokens=None,
        num_oov_indices=1,
        mask_token=None,
        oov_token="[UNK]",
        vocabulary=None,
        idf_weights=None,
        invert=False,
        output_mode="int",
        pad_to_max_tokens=False,
        sparse=False,
        encoding="utf-8",
        name=None,
        salt=None,
        **kwargs,
    ):
        super().__init__(
            max_tokens=max_tokens,
            num_oov_indices=num_oov_indices,
            mask_token=mask_token,
            oov_token=oov_token,
            vocabulary=vocabulary,
            idf_weights=idf_weights,
            invert=invert,
            output_mode=output_mode,
            pad_to_max_tokens=pad_to_max_tokens,
            sparse=sparse,
            name=name,
            salt=salt,
            vocabulary_dtype="string",
            **kwargs,
        )
        self.encoding = encoding

    def get_config(self):
        config = super().get_config()
        del config["vocabulary_dtype"]
        return {**config, "encoding": self.encoding}
