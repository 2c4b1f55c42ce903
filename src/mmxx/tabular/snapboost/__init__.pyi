from .estimators import SnapBoostClassifier as SnapBoostClassifier
from .estimators import SnapBoostRegressor as SnapBoostRegressor
from .files import load_model as load_model
from .hnbm import HNBM as HNBM
from .shards import Shard as Shard
from .tuning import sample_space as sample_space
from .tuning import tune as tune

__all__ = [
    "HNBM",
    "Shard",
    "SnapBoostClassifier",
    "SnapBoostRegressor",
    "load_model",
    "sample_space",
    "tune",
]
