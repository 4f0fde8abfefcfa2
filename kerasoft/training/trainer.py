"""Trainer: the part of a model that fits, evaluates and predicts; `compiling.py` is what it does before."""

from __future__ import annotations

import time

from ..data.kinds import is_distributed
from . import checks
from .compiling import Compiling
from .steps import Steps, overrides_steps, trains_by_steps


class Trainer(Compiling):
    """What `Model` inherits; see `compile` and `fit`.

    Attributes:
        optimizer, loss: as compiled.
        compiled: whether `compile` was called.
        history: the `History` of the last `fit`.
        last_fit_profile: where the last fit's wall time went, a `kerasoft.runtime.loop.Profile`.
        stop_training: set it to True in a callback to end the training.
    """

    # --- fit ----------------------------------------------------------------------------------------------------------

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=0.0,
        validation_data=None,
        shuffle=True,
        class_weight=None,
        sample_weight=None,
        initial_epoch=0,
        steps_per_epoch=None,
        validation_steps=None,
        validation_batch_size=None,
        validation_freq=1,
        *,
        strategy=None,
        feature_cols=None,
        label_cols=None,
        seed=None,
    ):
        """Trains the model.

        Args:
            x: NumPy arrays (one, a list, a dict by input name); a generator or iterable of batches ``(x, y)`` or
                ``(x, y, sample_weight)``; an RDD of rows; or a Spark DataFrame.
            y: labels, in the form of the outputs; None where x holds them.
            batch_size: rows of a step, over all workers together; 32 by default.
            epochs: the final epoch; those from `initial_epoch` on are made.
            verbose: 0 silent, 1 a live line, 2 one line an epoch; "auto" is 1.
            callbacks: `kerasoft.callbacks.Callback`s.
            validation_split: fraction of the rows, the last ones before shuffling, that are validated on instead.
            validation_data: ``(x, y)``, ``(x, y, sample_weight)``, a generator, an RDD or a DataFrame.
            shuffle: a new row order each epoch.
            class_weight: factor by class number, as if given as sample weights.
            sample_weight: factors of the rows' losses, (rows,) or (rows, steps); lists or dicts for several outputs.
            initial_epoch: first epoch.
            steps_per_epoch: ends an epoch early; needed for endless generators.
            validation_steps, validation_batch_size: the same for validation.
            validation_freq: validate every so many epochs, or after the 1-based epochs listed.
            strategy: how an RDD or DataFrame is trained on, `kerasoft.runtime.AllReduce` by default.
            feature_cols, label_cols: columns of a DataFrame (or keys of dict rows).
            seed: of the row order and all random masks; drawn from NumPy's global generator when None.

        Returns:
            a `History`.

        Raises:
            NotCompiledError: `compile` was not called.
            DataError: what is wrong with the data, before the first step.

        >>> import numpy as np, kerasoft as ks
        >>> model = ks.Sequential([ks.Input((1,)), ks.layers.Dense(1)])
        >>> model.compile(ks.optimizers.SGD(0.5), "mse")
        >>> x = np.array([[-1.0], [0.0], [1.0]])
        >>> history = model.fit(x, 2 * x + 1, epochs=200, verbose=0)
        >>> np.round(model.predict([[3.0]], verbose=0), 2).tolist()
        [[7.0]]
        """
        begin = time.perf_counter()
        checks.require_compiled(self)
        checks.check_epochs(epochs, initial_epoch)
        checks.check_weights_of_classes(class_weight, sample_weight)
        self._warn_if_trainable_changed()
        epochs, steps_per_epoch = checks.limited_epochs(epochs), checks.limited_steps(steps_per_epoch)
        given = dict(
            x=x, y=y, batch_size=batch_size, epochs=epochs, verbose=verbose, callbacks=callbacks,
            validation_data=validation_data, shuffle=shuffle, class_weight=class_weight, sample_weight=sample_weight,
            initial_epoch=initial_epoch, steps_per_epoch=steps_per_epoch, validation_steps=validation_steps,
            validation_batch_size=validation_batch_size, validation_freq=validation_freq, seed=seed,
        )  # fmt: skip
        checks.check_strategy(strategy, x, "train")
        if is_distributed(x):
            from .spark_fit import fit_spark

            checks.refuse_for_spark(validation_split=validation_split, y=y, class_weight=class_weight)
            return fit_spark(self, strategy=strategy, feature_cols=feature_cols, label_cols=label_cols, **given)
        if trains_by_steps(self):
            from .own_steps import fit_with_own_steps

            return fit_with_own_steps(self, begin=begin, validation_split=validation_split, **given)
        from .local_fit import fit_local

        return fit_local(self, begin=begin, validation_split=validation_split, **given)

    # --- evaluate and predict -----------------------------------------------------------------------------------------

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        steps=None,
        callbacks=None,
        return_dict=False,
        *,
        strategy=None,
        feature_cols=None,
        label_cols=None,
    ):
        """Loss and metrics over all rows: exact weighted means, whatever the batch size.

        Args:
            x, y, sample_weight, batch_size, verbose, callbacks, feature_cols, label_cols: as for `fit`.
            strategy: a `kerasoft.runtime.Parallel` that cuts the model among executors; None: each holds all of it.
            steps: batches at most.
            return_dict: a dict by name; else a list ``[loss, metrics...]``, or the loss alone if there are no metrics.

        Raises:
            NotCompiledError, DataError: as `fit`.
        """
        checks.require_compiled(self)
        checks.check_strategy(strategy, x, "score")
        steps = checks.limited_steps(steps)
        if is_distributed(x) and strategy is not None:
            from .spark_cut import evaluate_with

            logs = evaluate_with(strategy, self, x, batch_size, feature_cols, label_cols)
        elif is_distributed(x):
            from .spark_fit import evaluate_spark

            logs = evaluate_spark(self, x, batch_size, feature_cols, label_cols)
        elif overrides_steps(self):
            from .own_steps import evaluate_with_own_steps

            logs = evaluate_with_own_steps(self, x, y, batch_size, verbose, sample_weight, steps, callbacks, False)
        else:
            from .local_fit import evaluate_local

            logs = evaluate_local(self, x, y, batch_size, verbose, sample_weight, steps, callbacks)
        return logs if return_dict else self._ordered(logs)

    def predict(
        self,
        x,
        batch_size=None,
        verbose="auto",
        steps=None,
        callbacks=None,
        *,
        strategy=None,
        feature_cols=None,
        **options,
    ):
        """The model's outputs for all rows.

        Args:
            x, batch_size, verbose, callbacks: as for `fit`. An RDD gives a lazy RDD of one prediction a row in the same
                order and partitions; a DataFrame gives itself with one column more.
            steps: batches at most.
            strategy: as for `evaluate`.
            feature_cols: columns of a DataFrame.
            **options: `output_col`, the name of a DataFrame's new column.

        Returns:
            arrays in the structure of the model's outputs.
        """
        checks.check_strategy(strategy, x, "score")
        steps = checks.limited_steps(steps)
        if is_distributed(x):
            from .spark_fit import predict_spark

            checks.refuse_own_prediction(self)
            if strategy is not None:
                from .spark_cut import predict_with

                return predict_with(strategy, self, x, batch_size, feature_cols, **options)
            return predict_spark(self, x, batch_size, feature_cols, **options)
        if options:
            raise TypeError(f"predict() got an unexpected keyword argument {next(iter(options))!r}")
        if type(self).predict_step is not Steps.predict_step:
            from .own_steps import predict_with_own_steps

            return predict_with_own_steps(self, x, batch_size, verbose, steps, callbacks, False)
        from .local_fit import predict_local

        return predict_local(self, x, batch_size, verbose, steps, callbacks)

    def _ordered(self, logs):
        """The values in the order of the metrics, then the others by name; one value comes alone, several as a list."""
        names: list[str] = []
        for metric in self.metrics:
            names += [m.name for m in metric.metrics] if metric.name == "compile_metrics" else [metric.name]
        values = [logs[name] for name in names if name in logs]
        values += [logs[name] for name in sorted(set(logs) - set(names))]
        return values[0] if len(values) == 1 else values

    # --- single batches -----------------------------------------------------------------------------------------------

    def train_on_batch(self, x, y=None, sample_weight=None, class_weight=None, return_dict=False):
        """One step on one batch. Returns its loss and metrics like `evaluate`.

        Raises:
            NotCompiledError, DataError: as `fit`.
        """
        from .local_fit import train_on_batch

        checks.require_compiled(self)
        checks.check_weights_of_classes(class_weight, sample_weight)
        if trains_by_steps(self):
            from .own_steps import train_on_batch_with_own_steps

            logs = train_on_batch_with_own_steps(self, x, y, sample_weight, class_weight)
        else:
            logs = train_on_batch(self, x, y, sample_weight, class_weight)
        return logs if return_dict else self._ordered(logs)

    def test_on_batch(self, x, y=None, sample_weight=None, return_dict=False):
        """Loss and metrics of one batch, without training."""
        from .local_fit import evaluate_local

        checks.require_compiled(self)
        if overrides_steps(self):
            from .own_steps import evaluate_with_own_steps

            logs = evaluate_with_own_steps(self, x, y, None, 0, sample_weight, None, None, True)
        else:
            logs = evaluate_local(self, x, y, None, 0, sample_weight, None, None, whole=True)
        return logs if return_dict else self._ordered(logs)

    def predict_on_batch(self, x):
        """The outputs for one batch."""
        from .local_fit import predict_local

        if type(self).predict_step is not Steps.predict_step:
            from .own_steps import predict_with_own_steps

            return predict_with_own_steps(self, x, None, 0, None, None, True)
        return predict_local(self, x, None, 0, None, None, whole=True)
