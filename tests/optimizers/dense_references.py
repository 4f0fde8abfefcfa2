"""Steps of optimizers over whole tables in float64, written from their papers and Keras's documentation."""

import numpy as np


def adam(beta_1=0.9, beta_2=0.999, epsilon=1e-7, amsgrad=False):
    def step(p, g, s, rate, t):
        s["m"] = beta_1 * s["m"] + (1 - beta_1) * g
        s["v"] = beta_2 * s["v"] + (1 - beta_2) * g * g
        s["top"] = np.maximum(s["top"], s["v"]) if amsgrad else s["v"]
        return p - rate * np.sqrt(1 - beta_2**t) / (1 - beta_1**t) * s["m"] / (np.sqrt(s["top"]) + epsilon)

    return step, {"m": 0, "v": 0, "top": 0}


def adamax(beta_1=0.9, beta_2=0.999, epsilon=1e-7):
    def step(p, g, s, rate, t):
        s["m"] = beta_1 * s["m"] + (1 - beta_1) * g
        s["u"] = np.maximum(beta_2 * s["u"], np.abs(g))
        return p - rate / (1 - beta_1**t) * s["m"] / (s["u"] + epsilon)

    return step, {"m": 0, "u": 0}


def sgd(momentum=0.0, nesterov=False):
    def step(p, g, s, rate, t):
        s["m"] = momentum * s["m"] - rate * g
        return p + (momentum * s["m"] - rate * g if nesterov else s["m"])

    return step, {"m": 0}


def adagrad(first=0.1, epsilon=1e-7):
    def step(p, g, s, rate, t):
        s["a"] = s["a"] + g * g
        return p - rate * g / np.sqrt(s["a"] + epsilon)

    return step, {"a": first}


def adadelta(rho=0.95, epsilon=1e-7):
    def step(p, g, s, rate, t):
        s["a"] = rho * s["a"] + (1 - rho) * g * g
        delta = -np.sqrt(s["d"] + epsilon) * g / np.sqrt(s["a"] + epsilon)
        s["d"] = rho * s["d"] + (1 - rho) * delta * delta
        return p + rate * delta

    return step, {"a": 0, "d": 0}


def rmsprop(rho=0.9, momentum=0.0, epsilon=1e-7, centered=False):
    def step(p, g, s, rate, t):
        s["v"] = rho * s["v"] + (1 - rho) * g * g
        s["a"] = rho * s["a"] + (1 - rho) * g
        s["m"] = momentum * s["m"] + rate * g / np.sqrt(s["v"] - (s["a"] ** 2 if centered else 0) + epsilon)
        return p - s["m"]

    return step, {"v": 0, "a": 0, "m": 0}


def ftrl(l1=0.0, first=0.1):
    def step(p, g, s, rate, t):
        grown = s["n"] + g * g
        s["z"] = s["z"] + g - (np.sqrt(grown) - np.sqrt(s["n"])) / rate * p
        s["n"] = grown
        return (np.clip(s["z"], -l1, l1) - s["z"]) / (np.sqrt(grown) / rate)

    return step, {"n": first, "z": 0}
