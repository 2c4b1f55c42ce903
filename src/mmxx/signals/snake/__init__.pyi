from .activation import Snake as Snake
from .activation import SnakeBeta as SnakeBeta
from .activation import convert as convert
from .activation import snake as snake
from .activation import snake_init_ as snake_init_
from .activation import snake_variance as snake_variance
from .baselines import arima as arima
from .baselines import harmonic_regression as harmonic_regression
from .baselines import last_value as last_value
from .baselines import polynomial as polynomial
from .baselines import seasonal_naive as seasonal_naive
from .network import ACTIVATIONS as ACTIVATIONS
from .network import Networks as Networks
from .regressor import SnakeRegressor as SnakeRegressor
from .selection import candidate_periods as candidate_periods
from .selection import periodogram as periodogram
from .theory import Asymptote as Asymptote
from .theory import asymptote as asymptote
from .theory import fourier_network as fourier_network

__all__ = [
    "ACTIVATIONS",
    "Asymptote",
    "Networks",
    "Snake",
    "SnakeBeta",
    "SnakeRegressor",
    "arima",
    "asymptote",
    "candidate_periods",
    "convert",
    "fourier_network",
    "harmonic_regression",
    "last_value",
    "periodogram",
    "polynomial",
    "seasonal_naive",
    "snake",
    "snake_init_",
    "snake_variance",
]
