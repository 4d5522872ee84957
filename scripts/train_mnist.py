"""Train a convolutional network on MNIST and save it: the example to read first."""

import argparse

from tqdm import tqdm

from lowered_cnn import (
    Conv2D,
    Dense,
    Flatten,
    MaxPool,
    Network,
    Recipe,
    ReLU,
    Sequential,
    evaluate,
    load_mnist,
    save,
    train,
)

MODEL = Sequential(
    Conv2D(8, 5), MaxPool(2), ReLU(),
    Conv2D(24, 5), MaxPool(2), ReLU(),
    Flatten(), Dense(120), ReLU(), Dense(10),
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=Recipe().epochs)
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()

    mnist = load_mnist()
    data, dev = mnist.train.split(5000, seed=0)
    network = Network(MODEL, input_shape=(1, 28, 28), seed=0)
    recipe = Recipe(epochs=arguments.epochs)
    with tqdm(total=recipe.steps(len(data))) as bar:
        for record in train(network, data, recipe, dev=dev, workers=arguments.workers):
            bar.update()
            if record.dev_accuracy is not None:
                bar.write(f"epoch {record.epoch}: loss {record.epoch_loss:.3f}, dev accuracy {record.dev_accuracy:.2%}")
    print(f"test accuracy {evaluate(network, mnist.test).accuracy:.2%}")
    save(network, "mnist.safetensors")


if __name__ == "__main__":
    main()
