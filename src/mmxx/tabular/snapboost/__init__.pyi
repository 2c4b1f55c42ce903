from .estimators import SnapBoostClassifier as SnapBoostClassifier
from .estimators import SnapBoostRegressor as SnapBoostRegressor
from .files import load_model as load_model
from .hnbm import HNBM as HNBM

__all__ = ["HNBM", "SnapBoostClassifier", "SnapBoostRegressor", "load_model"]
