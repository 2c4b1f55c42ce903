from .agent import MuZero as MuZero
from .games import CartPole as CartPole
from .games import Catch as Catch
from .games import Game as Game
from .games import GridWorld as GridWorld
from .games import InARow as InARow
from .games import connect_four as connect_four
from .games import gomoku as gomoku
from .games import tic_tac_toe as tic_tac_toe
from .gumbel import gumbel_muzero_policy as gumbel_muzero_policy
from .judges import connect_four_values as connect_four_values
from .judges import solve as solve
from .matches import play_match as play_match
from .networks import MuZeroNetwork as MuZeroNetwork
from .networks import atari_network as atari_network
from .networks import mlp_network as mlp_network
from .networks import resnet_network as resnet_network
from .one_at_a_time import OneAtATime as OneAtATime
from .one_at_a_time import from_gymnasium as from_gymnasium
from .one_at_a_time import from_open_spiel as from_open_spiel
from .one_at_a_time import make_game as make_game
from .reference import reference_search as reference_search
from .replay import ReplayBuffer as ReplayBuffer
from .search import muzero_policy as muzero_policy
from .self_play import PlayItem as PlayItem
from .self_play import ReanalyzeItem as ReanalyzeItem
from .self_play import play_episodes as play_episodes
from .self_play import reanalyze as reanalyze
from .self_play import rules_model as rules_model
from .settings import Settings as Settings
from .stacking import Stacked as Stacked
from .support import DiscreteSupport as DiscreteSupport
from .support import scale_gradient as scale_gradient
from .support import scale_hidden as scale_hidden
from .targets import Episodes as Episodes
from .targets import make_targets as make_targets
from .tree import PolicyOutput as PolicyOutput
from .tree import RecurrentOutput as RecurrentOutput
from .tree import RootOutput as RootOutput
from .tree import Tree as Tree

__all__ = [
    "CartPole",
    "Catch",
    "DiscreteSupport",
    "Episodes",
    "Game",
    "GridWorld",
    "InARow",
    "MuZero",
    "MuZeroNetwork",
    "OneAtATime",
    "PlayItem",
    "PolicyOutput",
    "ReanalyzeItem",
    "RecurrentOutput",
    "ReplayBuffer",
    "RootOutput",
    "Settings",
    "Stacked",
    "Tree",
    "atari_network",
    "connect_four",
    "connect_four_values",
    "from_gymnasium",
    "from_open_spiel",
    "gomoku",
    "gumbel_muzero_policy",
    "make_game",
    "make_targets",
    "mlp_network",
    "muzero_policy",
    "play_episodes",
    "play_match",
    "reanalyze",
    "reference_search",
    "resnet_network",
    "rules_model",
    "scale_gradient",
    "scale_hidden",
    "solve",
    "tic_tac_toe",
]
