"""Several products in one model: one backbone, statistics for each."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_sspcab.hosts.base import AnomalyModel
from keras_sspcab.hosts.detector import Untracked
from keras_sspcab.hosts.feature_model import FeatureModel, untracked_model
from keras_sspcab.layers import auxiliary_losses_disabled
from keras_sspcab.optional_inputs import OptionalInput, product_index
from keras_sspcab.scoring import CalibratedScores, Calibration
from keras_sspcab.scoring.base import ScoringLayer
from keras_sspcab.scoring.recognition import ProductRecognition, Recognition


@keras.saving.register_keras_serializable(package="keras_sspcab")
class ProductModel(AnomalyModel):
    """One model for several products, each with statistics of its own.

    All products share a frozen backbone. What follows it, with statistics,
    thresholds and, where there is one, a block, is that of the product: the
    outputs are those of the model that was fitted to the product alone. Only
    what belongs to the products in a batch is computed.

    Which product an image shows is said along with it, or recognized: it is the
    one whose normal images are nearest in the means of the features over the
    image. An image that is far from all of them, half as far again as normal
    images get, is unknown: its product is -1, it is anomalous, and score and
    map are those of the nearest product.

    `ProductModel.join` makes one of models of single products. It is not
    trained itself.

    Args:
        host: A `FeatureModel`; its backbone is shared, and each product gets
            what follows, as it is there. It is not copied.
        products: Names of the products. An index is a place in them.
        calibration: A `Calibration` with those of the products.
        name: Name of the model; None takes that of the host.

    Outputs besides those of all hosts:
        product_index: `(batch,)` int32, that of the product; -1 for unknown.

    Raises:
        ValueError: If the host is none on frozen features, or names are empty
            or not unique.

    Example:
    >>> from keras_sspcab.applications import PatchCore
    >>> rng, models, images = np.random.default_rng(0), {}, {}
    >>> for name, level in (("nut", 0.2), ("bolt", 0.8)):
    ...     images[name] = level + 0.1 * rng.random((4, 32, 32, 3), "float32")
    ...     keras.utils.set_random_seed(0)  # The same backbone.
    ...     models[name] = PatchCore((32, 32, 3), weights=None, memory_size=16)
    ...     history = models[name].fit(images[name])
    ...     calibration = models[name].calibrate()
    >>> model = ProductModel.join(models)
    >>> model.fit_recognition(images).accuracy
    1.0
    >>> model.predict(images["bolt"], verbose=0)["product_index"]
    array([1, 1, 1, 1], dtype=int32)
    >>> model.predict(images["bolt"], product="nut", verbose=0)["product_index"]
    array([0, 0, 0, 0], dtype=int32)
    """

    optional_inputs = (OptionalInput("product", "int32"),)

    def __init__(
        self,
        host: FeatureModel,
        products: Sequence[str],
        calibration: Calibration | dict[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if not isinstance(host, FeatureModel):
            raise ValueError(
                "Products share a backbone of frozen features, which "
                "multiscale_padim, padim and patchcore have. Received: "
                f"host={host!r}"
            )
        names = tuple(map(str, products))
        if not names or not all(names) or len({*names}) < len(names):
            raise ValueError(
                "`products` must be different names, one at least. Received: "
                f"{list(products)}"
            )
        # === Functional model ===
        image, maps = host.inputs[0], host.backbone_maps
        pooled = keras.layers.Concatenate(dtype="float32", name="pooled")(
            [
                keras.layers.GlobalAveragePooling2D(
                    data_format="channels_last", dtype="float32"
                )(features)
                for features in maps
            ]
        )
        recognition = ProductRecognition(len(names), name="recognition")
        scoring = ProductScoring(
            _heads(host, names),
            Calibration.standardize(calibration).products,
            name="products",
        )
        found, nearest = recognition(pooled)
        super().__init__(
            inputs=image,
            outputs=scoring(image, maps, found, nearest),
            name=name or host.name,
        )
        given = keras.Input((), dtype="int32", name="product")
        told = recognition(pooled, given)
        #: The same, with the inputs `image` and `product`.
        self._told = untracked_model(
            {"image": image, "product": given}, scoring(image, maps, *told)
        )
        self._pooled = untracked_model(image, pooled)

        # === Config ===
        self.arguments = {}
        self.products = names
        self._host = Untracked(host)
        self.preprocessing = host.preprocessing
        # Attributes of the class in other hosts.
        object.__setattr__(self, "default_settings", host.default_settings)
        self.backbone_weights = host.backbone_weights

    @classmethod
    def join(
        cls, models: Mapping[str, FeatureModel], name: str | None = None
    ) -> "ProductModel":
        """Joins the models of single products into one.

        They are left as they are. Products are told apart after
        `fit_recognition`.

        Args:
            models: Fitted and calibrated models by name of the product, of one
                kind, with the same arguments and the same backbone.
            name: Name of the model; None takes that of the first.

        Raises:
            ValueError: If models differ in more than what they are fitted to.
        """
        if not models:
            raise ValueError("At least one model of a product is needed")
        first, *others = models
        for product in others:
            _check_same(first, models[first], product, models[product])
        model = cls(models[first], tuple(models), name=name)
        for number, part in enumerate(models.values()):
            head = model._scoring().heads[number]
            head.set_weights(part.scoring_head().get_weights())
        model.calibration = Calibration.of_products(
            {product: part.calibration for product, part in models.items()}
        )
        return model

    # Not properties: Keras would save what they return once more.

    def _scoring(self) -> "ProductScoring":
        return self.get_layer("products")

    def shared_host(self) -> FeatureModel:
        """Returns what the backbone is of; its statistics do not count."""
        return self._host.value

    def graph_with_options(self) -> keras.Model:
        """Returns the same with the inputs `image` and `product`.

        A product of -1 is recognized.
        """
        return self._told.value

    @property
    def needs_training(self) -> bool:
        """Always False: the models of the products are trained before."""
        return False

    # === Products ===

    def fit_recognition(self, data: Mapping[str, Any]) -> Recognition:
        """Learns to tell the products apart; returns how well that is done.

        Args:
            data: Normal images of each product, by its name: an array or an
                iterable of batches. All products at once.
        """
        if set(data) != set(self.products):
            raise ValueError(
                "Normal images of all products are needed: "
                f"{', '.join(self.products)}. Received: {', '.join(data)}"
            )
        layer = self.get_layer("recognition")
        held_out = layer.fit([self._embed(data[n]) for n in self.products])
        self.discard_compiled()
        found = dict(zip(self.products, held_out, strict=True))
        return Recognition.count(self.products, found)

    def recognize(self, data: Any) -> np.ndarray:
        """Returns which products images show, `(images,)`; -1 for unknown."""
        found, _ = self.get_layer("recognition")(self._embed(data))
        return ops.convert_to_numpy(found)

    def _embed(self, data: Any) -> np.ndarray:
        embeddings = [
            np.asarray(self._pooled.value.predict_on_batch(images))
            for images, _ in self.input_batches(data)
        ]
        if not embeddings:
            raise ValueError("There are no images to tell products apart by")
        return np.concatenate(embeddings)

    # === Use ===

    def predict(
        self, x: Any, *args: Any, product: Any = None, **kwargs: Any
    ) -> Any:
        """Scores images, as all models do.

        Args:
            x: Images.
            *args: As of `keras.Model.predict`.
            product: What they show: a name or an index, or one for each image
                of an array; None (the default) recognizes it.
            **kwargs: As of `keras.Model.predict`.
        """
        if product is None:
            return super().predict(x, *args, **kwargs)
        self._check_prediction(x)
        if not hasattr(x, "shape"):
            raise ValueError(
                "With `product`, images are an array. Received: "
                f"{type(x).__name__}. Give its batches to `predict_on_batch`"
            )
        inputs = {"image": x, "product": self._indices(product, len(x))}
        return self._told.value.predict(inputs, *args, **kwargs)

    def predict_on_batch(self, x: Any, product: Any = None) -> Any:
        """Scores a batch of images; see `predict`."""
        if product is None:
            return super().predict_on_batch(x)
        inputs = {"image": x, "product": self._indices(product, len(x))}
        return self._told.value.predict_on_batch(inputs)

    def _indices(self, product: Any, count: int) -> np.ndarray:
        if isinstance(product, (str, int, np.integer)):
            product = [product] * count
        if len(product) != count:
            raise ValueError(
                "One product is needed for each image. Received: "
                f"{len(product)} products for {count} images"
            )
        indices = [product_index(self.products, one) for one in product]
        return np.array(indices, "int32")

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Raises a ValueError: models are fitted to products, then joined."""
        raise ValueError(
            f"{self.name} has several products. Fit a model to each, and join "
            "them with `ProductModel.join`"
        )

    def fit(self, x: Any = None, y: Any = None, **kwargs: Any) -> Any:
        """Raises a ValueError: models are fitted to products, then joined."""
        self.compile()

    @property
    def calibration(self) -> Calibration:
        """Those of the products, and what they have in common."""
        parts = zip(self.products, self._scoring().calibrations, strict=True)
        return Calibration.of_products(dict(parts))

    @calibration.setter
    def calibration(self, value: Calibration) -> None:
        self.apply_calibration(value)
        self.discard_compiled()

    def apply_calibration(self, value: Calibration) -> None:
        """Gives each product its calibration."""
        names = tuple(part.name for part in value.products)
        if names != self.products:
            raise ValueError(
                "A calibration of each product is needed: "
                f"{', '.join(self.products)}. Received: "
                f"{', '.join(names) or 'one without products'}"
            )
        self._scoring().calibrations = value.products

    def calibrate(self, *args: Any, **kwargs: Any) -> Calibration:
        """Raises a ValueError: calibrate the models, then join them."""
        raise ValueError(
            f"{self.name} has several products, each with thresholds of its "
            "own. Calibrate the models of the products, and join them again"
        )

    # === Config ===

    def get_config(self) -> dict[str, Any]:
        config = {
            **super().get_config(),
            "host": keras.saving.serialize_keras_object(self.shared_host()),
            "products": list(self.products),
        }
        # It is the host's.
        config.pop("backbone_weights", None)
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: Any = None
    ) -> "ProductModel":
        host = keras.saving.deserialize_keras_object(
            config["host"], custom_objects
        )
        return super().from_config({**config, "host": host})


def _heads(host: FeatureModel, names: Sequence[str]) -> list[keras.Model]:
    """Returns what follows the backbone, new for each product."""
    head = host.scoring_head()
    heads = []
    for number in range(len(names)):
        copy = keras.models.clone_model(head)
        heads.append(
            keras.Model(copy.inputs, copy.outputs, name=f"product{number}")
        )
    return heads


def _check_same(
    first: str, model: FeatureModel, product: str, other: FeatureModel
) -> None:
    """Raises a ValueError unless two models can share a backbone."""
    problem = ""
    if type(model) is not type(other):
        problem = f"{type(model).__name__} and {type(other).__name__}"
    elif model.preprocessing != other.preprocessing:
        problem = (
            f"images are read by {model.preprocessing.to_dict()} and "
            f"{other.preprocessing.to_dict()}"
        )
    else:
        differing = [
            name
            for name, value in model.arguments.items()
            if other.arguments.get(name) != value
        ]
        pairs = zip(
            model.get_layer("backbone").get_weights(),
            other.get_layer("backbone").get_weights(),
            strict=False,
        )
        if differing:
            problem = f"arguments differ: {', '.join(differing)}"
        elif not all(np.array_equal(*pair) for pair in pairs):
            problem = "the weights of their backbones differ"
    if problem:
        raise ValueError(
            "Models of products that are joined must be made alike. Received "
            f"for {first!r} and {product!r}: {problem}"
        )


class ProductScoring(ScoringLayer):
    """Scores each image by what belongs to its product.

    Args:
        heads: Models from the image and the maps of the backbone to raw score
            and raw map, one for each product.
        calibrations: One for each product, or none.

    Call arguments:
        image: `(batch, height, width, channels)`.
        maps: Those of the backbone.
        product: `(batch,)` int32, -1 for unknown.
        scored_as: `(batch,)` int32, the product that counts.
    """

    def __init__(
        self,
        heads: Sequence[keras.Model],
        calibrations: Iterable[Calibration] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.heads = list(heads)
        parts: list[Calibration | None] = [*calibrations]
        parts = parts or [None] * len(self.heads)
        self._calibrated = [
            CalibratedScores(part, name=f"calibration{number}")
            for number, part in enumerate(parts)
        ]

    @property
    def calibrations(self) -> tuple[Calibration, ...]:
        """Those of the products."""
        return tuple(layer.calibration for layer in self._calibrated)

    @calibrations.setter
    def calibrations(self, values: Sequence[Calibration]) -> None:
        for layer, value in zip(self._calibrated, values, strict=True):
            layer.calibration = value

    def call(
        self, image: Any, maps: Sequence[Any], product: Any, scored_as: Any
    ) -> dict[str, Any]:
        plane = image[..., 0] * 0.0
        none = plane[:, 0, 0]
        outputs = (none, plane, none > 1.0, none)
        for number in range(len(self.heads)):
            outputs = self._add(number, image, maps, scored_as, outputs)
        names = ("anomaly_score", "anomaly_map", "is_anomalous", "raw_score")
        named = dict(zip(names, outputs, strict=True))
        # Of an unknown product nothing is normal.
        named["is_anomalous"] = ops.logical_or(
            named["is_anomalous"], product < 0
        )
        return {**named, "product_index": product}

    def _add(
        self,
        number: int,
        image: Any,
        maps: Sequence[Any],
        scored_as: Any,
        outputs: tuple[Any, ...],
    ) -> tuple[Any, ...]:
        """Puts in the outputs of the images of a product, if there are any."""
        is_own = ops.equal(scored_as, number)

        def score(step: Any, *before: Any) -> tuple[Any, ...]:
            # Blocks have no part in the loss of what is not trained.
            with auxiliary_losses_disabled():
                raw_score, raw_map = self.heads[number](
                    [image, *maps], training=False
                )
            own = self._calibrated[number](raw_score, raw_map)
            after = (*own.values(), raw_score)
            return step + 1, *(
                ops.where(ops.reshape(is_own, (-1, *[1] * rank)), new, old)
                for rank, new, old in zip(
                    (0, 2, 0, 0), after, before, strict=True
                )
            )

        # A loop of one step or none. What converts graphs to ONNX takes the
        # inputs of a condition for each other.
        steps = ops.cast(ops.any(is_own), "int32")
        _, *outputs = ops.while_loop(
            lambda step, *_: step < steps, score, (0, *outputs)
        )
        return tuple(outputs)

    def compute_output_spec(
        self, image: Any, maps: Any, product: Any, scored_as: Any
    ) -> dict[str, Any]:
        batch, height, width, _ = image.shape
        dtypes = {"raw_score": "float32", "anomaly_score": "float32"}
        dtypes |= {"is_anomalous": "bool", "product_index": "int32"}
        return {
            **{n: keras.KerasTensor((batch,), t) for n, t in dtypes.items()},
            "anomaly_map": keras.KerasTensor((batch, height, width), "float32"),
        }
