#!/usr/bin/env python3
"""Numbers of scikit-learn for tests/scikit_learn.rs: k-NN and logistic regression on features that both programs make by one formula.

    python3 tests/scikit_learn/make.py > tests/scikit_learn/numbers.json     # needs scikit-learn and numpy
"""
import json
import sys

import numpy as np
import sklearn
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import StandardScaler

WIDTH, CLASSES = 24, 7
MASK = (1 << 64) - 1


def uniform(number):
    """SplitMix64 of a number, as a multiple of 2^-24 in [0, 1)."""
    z = (number * 0x9E3779B97F4A7C15 + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return ((z ^ (z >> 31)) >> 40) / 2.0**24


def features(first, count, spread):
    """Rows `first` … of overlapping clouds; columns differ in scale and place. Sums of exact binary fractions: no rounding differs."""
    rows = np.zeros((count, WIDTH), np.float32)
    labels = [(first + i) % CLASSES for i in range(count)]
    for i in range(count):
        for j in range(WIDTH):
            centre = uniform(1_000_000_000 + labels[i] * WIDTH + j)
            noise = sum(uniform(((first + i) * WIDTH + j) * 4 + k) for k in range(4)) - 2.0
            rows[i, j] = np.float32((centre + spread * noise) * (1 + j % 5) + j / 8)
    return rows, np.array(labels)


def objective(x, y, w, b, l2):
    logits = x.astype(np.float64) @ w.T + b
    top = logits.max(1, keepdims=True)
    cross_entropy = np.log(np.exp(logits - top).sum(1)) + top[:, 0] - logits[np.arange(len(y)), y]
    return cross_entropy.mean() + 0.5 * l2 * (w * w).sum()


def main():
    cases = []
    for train_size, test_size, spread in [(700, 350, 1.5), (301, 203, 0.75)]:
        train, y = features(0, train_size, spread)
        test, truth = features(train_size, test_size, spread)
        case = {"train": train_size, "test": test_size, "spread": spread, "knn": [], "probe": []}
        for k, temperature in [(1, 0.1), (20, 0.1), (200, 0.1), (20, 0.01)]:
            # The weight that our k-NN states: exp(cosine / temperature); scikit-learn's distance is 1 - cosine.
            model = KNeighborsClassifier(
                k, metric="cosine", algorithm="brute", weights=lambda d, t=temperature: np.exp((1.0 - d) / t)
            )
            model.fit(train.astype(np.float64), y)
            hits = int((model.predict(test.astype(np.float64)) == truth).sum())
            case["knn"].append({"k": k, "temperature": temperature, "hits": hits})
        scaler = StandardScaler().fit(train.astype(np.float64))
        x, z = scaler.transform(train.astype(np.float64)), scaler.transform(test.astype(np.float64))
        for l2 in [1e-4, 1e-2, 1.0]:
            # C sums where our loss is a mean.
            model = LogisticRegression(C=1.0 / (l2 * train_size), tol=1e-10, max_iter=100_000)
            model.fit(x, y)
            case["probe"].append({
                "l2": l2,
                "hits": int((model.predict(z) == truth).sum()),
                "objective": objective(x, y, model.coef_, model.intercept_, l2),
            })
        cases.append(case)
    json.dump({"made_by": f"scikit-learn {sklearn.__version__}", "cases": cases}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
