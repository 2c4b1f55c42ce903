"""What MuZero is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most

_SHORT = (
    "Tic-tac-toe instead of Go: 8,000 games of 25 simulations and 1,250 training steps of a "
    "perceptron; judged in all 4,520 positions, without sampling. Quick has one seed, full two."
)
_LONG = "Tic-tac-toe, two seeds, 74,800 games of 25 simulations and 11,687 training steps."
_CARTPOLE = "CartPole-v1 instead of Atari: 78,000 environment steps, one seed, 32 greedy episodes."

CARD = Card(
    name="muzero",
    title="MuZero",
    paper=Paper(
        title="Mastering Atari, Go, chess and shogi by planning with a learned model",
        authors=(
            "Julian Schrittwieser",
            "Ioannis Antonoglou",
            "Thomas Hubert",
            "Karen Simonyan",
            "Laurent Sifre",
            "Simon Schmitt",
            "Arthur Guez",
            "Edward Lockhart",
            "Demis Hassabis",
            "Thore Graepel",
            "Timothy Lillicrap",
            "David Silver",
        ),
        venue="Nature 588",
        year=2020,
        url="https://arxiv.org/abs/1911.08265",
        arxiv="1911.08265",
    ),
    summary=(
        "Planning by tree search in a model that is learned only as far as planning needs it: "
        "observations become hidden states, and a state and an action become a reward and the next "
        "state. The rules are never searched. For games and control, batched, on a CPU."
    ),
    claims=(
        Claim(
            id="optimal-play",
            text="With a learned model it comes to play a game nearly perfectly.",
            where="figure 2: Go, chess and shogi at the level of AlphaZero",
            paper=None,
            bars={"quick": at_least(0.87), "full": at_least(0.985)},
            unit="share of positions in which its move is optimal",
            scaled=f"{_SHORT} The full bar is that of the long training: {_LONG}",
            sham=True,
        ),
        Claim(
            id="search-adds",
            text=(
                "It plays better the more it searches, beyond the simulations of its training: "
                "100 against none."
            ),
            where="figure 3A: strength in Go grows with the time to search",
            paper=None,
            bars={"quick": at_least(0.02), "full": at_least(0.02)},
            unit="optimal moves above those of the policy without search",
            scaled=_SHORT,
            sham=True,
        ),
        Claim(
            id="model-matters",
            text=(
                "The search uses the model: with the actions mixed up on their way into it, it "
                "plays worse."
            ),
            where="a control of ours for figure 3A",
            paper=None,
            bars={"quick": at_least(0.03), "full": at_least(0.03)},
            unit="optimal moves above those with permuted actions",
            scaled=_SHORT,
            sham=True,
        ),
        Claim(
            id="search-teaches",
            text=(
                "What it learns from is the search: trained with one simulation, whose visits "
                "repeat the prior, it learns less."
            ),
            where="figure 3D: fewer simulations in training learn less",
            paper=None,
            bars={"quick": at_least(0.08), "full": at_least(0.08)},
            unit="optimal moves above those of training with one simulation",
            scaled=f"Both after 2,700 games. {_SHORT}",
            sham=True,
        ),
        Claim(
            id="as-good-as-the-rules",
            text=(
                "Planning with the learned model is as good as AlphaZero's planning with the rules."
            ),
            where="figure 2",
            paper=None,
            bars={"full": at_least(-0.015)},
            unit="optimal moves above AlphaZero's after as many games",
            scaled=_LONG,
        ),
        Claim(
            id="never-loses-first",
            text="Moving first it cannot be beaten, whatever the other does.",
            where="figure 2",
            paper=None,
            bars={"full": at_least(0.0)},
            unit="worst result of the worst seed",
            scaled=_LONG,
        ),
        Claim(
            id="perfect-opponent",
            text="It holds the draw against perfect play.",
            where="figure 2",
            paper=None,
            bars={"full": at_most(0.10)},
            unit="probability to lose to a player who mixes all best moves",
            scaled=_LONG,
        ),
        Claim(
            id="curve-rises",
            text="Strength does not fall as simulations grow from 0 to 400.",
            where="figure 3A",
            paper=None,
            bars={"full": at_most(0.005)},
            unit="largest fall of the share of optimal moves",
            scaled=f"0, 5, 25, 100 and 400 simulations. {_SHORT}",
        ),
        Claim(
            id="beats-model-free",
            text="A model-free twin with the same network and as many games ends lower.",
            where="figure 3C: the model-free twin ends far lower",
            paper=None,
            bars={"full": at_least(0.05)},
            unit="optimal moves above the twin's",
            scaled=f"The twin is an n-step actor-critic on h and f. {_LONG}",
        ),
        Claim(
            id="cartpole",
            text="It learns to control from raw observations.",
            where="table 1: Atari",
            paper=None,
            bars={"full": at_least(475)},
            unit="mean return, 500 at most",
            scaled=_CARTPOLE,
        ),
        Claim(
            id="cartpole-search-adds",
            text="There, too, its search is better than its policy.",
            where="figure 3B: Atari with more simulations",
            paper=None,
            bars={"full": at_least(30)},
            unit="mean return above that of the policy",
            scaled=_CARTPOLE,
        ),
        Claim(
            id="cartpole-model-matters",
            text="There, too, the search fails with its actions permuted.",
            where="a control of ours for figure 3B",
            paper=None,
            bars={"full": at_most(300)},
            unit="mean return with permuted actions",
            scaled=_CARTPOLE,
        ),
    ),
    api=(
        "mmxx.planning.muzero:MuZero",
        "mmxx.planning.muzero:muzero_policy",
        "mmxx.planning.muzero:gumbel_muzero_policy",
        "mmxx.planning.muzero:reference_search",
        "mmxx.planning.muzero:RootOutput",
        "mmxx.planning.muzero:RecurrentOutput",
        "mmxx.planning.muzero:PolicyOutput",
        "mmxx.planning.muzero:Tree",
        "mmxx.planning.muzero:MuZeroNetwork",
        "mmxx.planning.muzero:mlp_network",
        "mmxx.planning.muzero:resnet_network",
        "mmxx.planning.muzero:atari_network",
        "mmxx.planning.muzero:DiscreteSupport",
        "mmxx.planning.muzero:scale_gradient",
        "mmxx.planning.muzero:scale_hidden",
        "mmxx.planning.muzero:make_targets",
        "mmxx.planning.muzero:ReplayBuffer",
        "mmxx.planning.muzero:play_episodes",
        "mmxx.planning.muzero:reanalyze",
        "mmxx.planning.muzero:rules_model",
        "mmxx.planning.muzero:make_game",
        "mmxx.planning.muzero:from_gymnasium",
        "mmxx.planning.muzero:from_open_spiel",
        "mmxx.planning.muzero:OneAtATime",
        "mmxx.planning.muzero:InARow",
        "mmxx.planning.muzero:Catch",
        "mmxx.planning.muzero:GridWorld",
        "mmxx.planning.muzero:CartPole",
        "mmxx.planning.muzero:Stacked",
        "mmxx.planning.muzero:connect_four_values",
        "mmxx.planning.muzero:play_match",
    ),
    experiment="mmxx.planning.muzero.experiment:run",
    extra="planning",
    departs=(
        "In the pseudocode the search of a game for two adds the other player's value and leaves "
        "rewards unsigned; here every value and reward is the mover's, and the discount of an edge "
        "carries the sign.",
        "The small recipe, with which the claims are measured: LayerNorm at the input of g and f "
        "and a residual g; the reward loss at full weight, not at 1/K; up to five uniformly random "
        "moves to begin a game, whose value target is the search's own; cross-entropy heads and "
        "Adam with a rate that falls linearly. Without these a small network hardly learns here. "
        "The recipe 'paper' has the paper's own.",
        "In a learned model of a game for two the players alternate, unless turns='learned' adds a "
        "head that says who moves on.",
        "Self-play and training alternate in generations with a lag of one, not freely, so that a "
        "run repeats bit by bit.",
        "Ties in the tree go to the lowest action; the pseudocode takes the highest.",
        "The parent's visits are counted as in mctx by the small recipe, as in the pseudocode by "
        "the recipe 'paper'.",
        "Where priorities are used they are updated after a generation, not after each step.",
        "Reanalyze searches again, each generation, a share of the positions that were drawn for "
        "training, and bootstraps from the target network.",
    ),
    scale=frozenset({"map", "ddp"}),
)
