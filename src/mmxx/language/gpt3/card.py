"""What GPT-3 is and what its paper claims."""

from mmxx.lab.catalog import Card, Claim, Paper, at_least, at_most, between

_SCALED = (
    "GPTs of 2 layers, 7,000 to 100,000 parameters without embeddings, that read 26,000 (quick) or "
    "64,000 documents of pairs. The task is to find out, from the pairs before, into which of six "
    "languages a document translates, half of the pairs being into a random one; no document "
    "names it. The best possible reader is right in .167, .583 and .991 after 0, 1 and 16 pairs. "
    "The paper has 175 billion parameters and 300 billion tokens of text."
)
_TEXT = (
    "Six GPTs of 5,000 to 110,000 parameters that read 2.2 MB of Python's documentation once, by "
    "a vocabulary of 1,024; the paper fits eight models over seven orders of compute."
)

CARD = Card(
    name="gpt3",
    title="GPT-3",
    paper=Paper(
        title="Language Models are Few-Shot Learners",
        authors=(
            "Tom B. Brown",
            "Benjamin Mann",
            "Nick Ryder",
            "Melanie Subbiah",
            "Jared Kaplan",
            "Prafulla Dhariwal",
            "Arvind Neelakantan",
            "Pranav Shyam",
            "Girish Sastry",
            "Amanda Askell",
            "Sandhini Agarwal",
            "Ariel Herbert-Voss",
            "Gretchen Krueger",
            "Tom Henighan",
            "Rewon Child",
            "Aditya Ramesh",
            "Daniel M. Ziegler",
            "Jeffrey Wu",
            "Clemens Winter",
            "Christopher Hesse",
            "Mark Chen",
            "Eric Sigler",
            "Mateusz Litwin",
            "Scott Gray",
            "Benjamin Chess",
            "Jack Clark",
            "Christopher Berner",
            "Sam McCandlish",
            "Alec Radford",
            "Ilya Sutskever",
            "Dario Amodei",
        ),
        venue="NeurIPS",
        year=2020,
        url="https://proceedings.neurips.cc/paper/2020/hash/"
        "1457c0d6bfcb4967418bfb8ac142f64a-Abstract.html",
        arxiv="2005.14165",
    ),
    summary=(
        "A language model that does new tasks from a few examples in its context, with no step of "
        "training on them. Here to train on one's own text, to load as GPT-2's weights, to "
        "generate from and to ask, with the paper's protocol, its cleaning of text and its study "
        "of contamination."
    ),
    claims=(
        Claim(
            id="few-shot",
            text="Trained to predict the next token only, it does a task from 16 examples.",
            where="Table 3.10, random insertion in word, few-shot",
            paper=0.672,
            bars={"quick": at_least(0.70), "full": at_least(0.88)},
            unit="right after 16 pairs",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="few-over-zero",
            text="Examples in the context raise it far above the same model without any.",
            where="Table 3.10, random insertion in word, few-shot less zero-shot",
            paper=0.589,
            bars={"quick": at_least(0.45), "full": at_least(0.65)},
            unit="more right after 16 pairs than after none",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="one-shot",
            text="One example helps, as much as one example can.",
            where="Table 3.10, random insertion in word, one-shot",
            paper=0.454,
            bars={"full": between(0.50, 0.63)},
            unit="right after 1 pair",
            scaled=_SCALED,
            sham=True,
        ),
        Claim(
            id="examples-of-no-task",
            text="Where the examples are of random tasks, they do not help.",
            where="Our control: pairs that agree on no language",
            paper=None,
            bars={"quick": at_most(0.25), "full": at_most(0.23)},
            unit="right after 16 pairs of random languages",
            scaled=_SCALED,
        ),
        Claim(
            id="small-model",
            text="A small model gains little from its context.",
            where="Figure 1.2: the gain from context grows with the model",
            paper=None,
            bars={"quick": at_most(0.15), "full": at_most(0.15)},
            unit="more right after 16 pairs than after none, at width 16",
            scaled=_SCALED,
        ),
        Claim(
            id="middle-model",
            text="A model between them gains much.",
            where="Figure 1.2: the gain from context grows with the model",
            paper=None,
            bars={"full": at_least(0.5)},
            unit="more right after 16 pairs than after none, at width 32",
            scaled=_SCALED,
        ),
        Claim(
            id="coherent-text",
            text="What makes it learn from context is text that is about one thing.",
            where="Figure 1.1: skills learnt in unsupervised pre-training",
            paper=None,
            bars={"full": at_most(0.25)},
            unit="right after 16 pairs, trained on the same pairs in no order",
            scaled=_SCALED,
        ),
        Claim(
            id="not-above-best",
            text="No model is right more often than the best possible reader.",
            where="Our control: the best reader's accuracy by enumeration",
            paper=None,
            bars={"quick": at_most(3.0), "full": at_most(3.0)},
            unit="standard errors above it, at most",
            scaled=_SCALED,
        ),
        Claim(
            id="power-law",
            text="Loss falls as a power of compute.",
            where="Figure 3.1: loss = 2.57 · C^-0.048",
            paper=None,
            bars={"full": at_least(0.98)},
            unit="R² of log loss against log compute",
            scaled=_TEXT,
        ),
        Claim(
            id="extrapolates",
            text="The small models' losses tell that of the largest.",
            where="Figure 3.1",
            paper=None,
            bars={"full": at_most(3.0)},
            unit="% that the largest model's loss is off",
            scaled=_TEXT,
        ),
    ),
    api=(
        "mmxx.language.gpt3:GPT",
        "mmxx.language.gpt3:GPTConfig",
        "mmxx.language.gpt3:KVCache",
        "mmxx.language.gpt3:ByteBPE",
        "mmxx.language.gpt3:PackedDataset",
        "mmxx.language.gpt3:PackedSequences",
        "mmxx.language.gpt3:Mixture",
        "mmxx.language.gpt3:read_documents",
        "mmxx.language.gpt3:Schedule",
        "mmxx.language.gpt3:Training",
        "mmxx.language.gpt3:train",
        "mmxx.language.gpt3:validation_loss",
        "mmxx.language.gpt3:shard",
        "mmxx.language.gpt3:whole_state",
        "mmxx.language.gpt3:WholeState",
        "mmxx.language.gpt3:generate",
        "mmxx.language.gpt3:Generation",
        "mmxx.language.gpt3:Task",
        "mmxx.language.gpt3:Example",
        "mmxx.language.gpt3:evaluate",
        "mmxx.language.gpt3:loglikelihoods",
        "mmxx.language.gpt3:Likelihood",
        "mmxx.language.gpt3:Result",
        "mmxx.language.gpt3:Quality",
        "mmxx.language.gpt3:minhash",
        "mmxx.language.gpt3:dedup",
        "mmxx.language.gpt3:Contamination",
        "mmxx.language.gpt3:decontaminate",
        "mmxx.language.gpt3:Report",
        "mmxx.language.gpt3:scaling_fit",
        "mmxx.language.gpt3:ScalingFit",
        "mmxx.language.gpt3:frontier",
        "mmxx.language.gpt3:Documents",
        "mmxx.language.gpt3:bayes_accuracy",
        "mmxx.language.gpt3:mfu",
        "mmxx.language.gpt3:peak_flops",
    ),
    experiment="mmxx.language.gpt3.experiment:run",
    extra="language",
    departs=(
        "No training code was published. The band of the banded layers is not given in the paper: "
        "here it is 256 tokens, in every second layer.",
        "The experiment's models are dense, two layers deep, and begin with a standard deviation "
        "of .02·√(768/width): with .02 nets so small do not learn in context.",
        "The experiment's documents are synthetic, so that the best possible accuracy is known. "
        "Real text serves for the power law.",
        "Near-duplicates are compared by all their runs of words after MinHash has proposed them.",
    ),
    scale=frozenset({"map", "ddp"}),
)
