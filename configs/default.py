# SPDX-License-Identifier: Apache-2.0
"""Every knob once, with its meaning. The other files start from this one and edit it.

Command: none of its own; see sudoku_extreme.py and smoke.py.
"""

from ml_collections import ConfigDict, config_dict

# The published networks, and one of our own: their sublayers, by name.
LAYERS = {
    "mlp_t": ("token_mlp", "swiglu") * 2,
    "attention": ("attention", "swiglu") * 2,
    "mamba2_mlp_t": ("mamba2", "mamba2", "token_mlp"),  # TR-mamba2mlpt
    "mamba2_attn": ("mamba2", "mamba2", "attention", "swiglu"),  # TR-mamba2attn
    "mamba2_attn_bidir": ("mamba2", "mamba2_backward", "attention", "swiglu"),  # ours
}


def set_network(config: ConfigDict, variant: str) -> None:
    """Set the layers to LAYERS[variant]; only attention needs positions."""
    if variant not in LAYERS:
        names = ", ".join(LAYERS)
        raise ValueError(f"unknown variant {variant!r}; expected one of {names}")
    layers = LAYERS[variant]
    config.model.layers = layers
    config.model.positions = "rope" if "attention" in layers else "none"


def get_config() -> ConfigDict:
    """TRM with attention on 9x9 Sudoku, by the TRM paper's settings."""
    return config_dict.create(
        seed=0,  # weights, exploration, order of the puzzles; 0 is a seed
        data=config_dict.create(
            task="sudoku",  # sudoku | maze | arc
            source="csv",  # csv | arrays | generator | hub | prepared; arc: json |
            # prepared
            # csv: a .csv or .csv.gz; arrays: the folder above train/; json: the folder
            # of the bundles; prepared: what the preparation was told as --data_dir
            train="",
            test="",  # likewise; arrays, json, prepared: empty takes the same folder
            train_puzzles=0,  # how many to choose at random, 0 = all; or to generate
            test_puzzles=0,  # likewise; arc: tasks
            num_augmentations=0,  # forms per training puzzle, beside itself; maze: to 7
            seed=0,  # choice of the subset, generation, augmentation
            box_rows=3,  # sudoku: a box is box_rows x box_cols cells: 2x2, 2x3 or 3x3
            box_cols=3,
            clues=(0, 0),  # sudoku generator: fewest and most clues
            side=30,  # maze, arc: rows and columns of the grid
            min_moves=109,  # maze generator: length of the shortest paths
            wall_share=(0.2, 0.5),  # maze generator: each maze draws its share
            # arc: trained on whole, but for the test subset
            train_subsets=("training", "evaluation", "concept"),
            test_subset="evaluation",  # arc: trained on are its demonstrations alone
            max_grid=0,  # arc: leave out tasks with a larger grid; 0 = refuse them
            allow_leaks=False,  # arc: train on tasks that hold answers to test inputs
        ),
        model=config_dict.create(
            layers=("attention", "swiglu") * 2,  # sublayers, each h = rms(h + f(h))
            d_model=512,
            num_heads=8,
            expansion=4.0,  # SwiGLU inner width = expansion * width * 2/3, see next
            swiglu_width=0,  # inner width; 0 = from expansion, up to a multiple of 256
            token_mlp_width=0,  # likewise for token_mlp
            expand=2,  # mamba2: inner width / d_model
            head_dim=64,  # mamba2: channels per head
            d_state=128,  # mamba2: state dimensions per channel
            num_groups=1,  # mamba2: groups of heads that share B and C
            d_conv=4,  # mamba2: window of the convolution
            chunk_size=64,  # mamba2: tokens per chunk of the scan; changes speed only
            ssd_implementation="auto",  # auto: GPU kernels, else chunked | recurrent |
            # chunked | pallas
            positions="rope",  # rope | learned | none
            rope_theta=10_000.0,
            prefix_len=16,  # tokens before the grid that hold the puzzle vector
            puzzle_dim=0,  # width of a puzzle vector; 0 = d_model
            h_cycles=3,  # answer updates per supervision step; the last has gradients
            l_cycles=6,  # latent updates per answer update
            max_supervision_steps=16,
            explore_rate=0.1,  # share of rows that must stay for 2..max steps
            dtype="bfloat16",  # of activations: bfloat16 | float32; weights: float32
            remat="none",  # none | dots (keep matrix products) | full (keep nothing)
        ),
        optim=config_dict.create(
            lr=1e-4,
            weight_decay=1.0,
            table_lr=1e-4,  # sign-SGD of the puzzle table
            table_weight_decay=1.0,
            b1=0.9,
            b2=0.95,
            warmup_steps=2_000,
            min_ratio=1.0,  # last learning rate / lr; 1 = constant after the warm-up
            decay_start=0.0,  # share of all steps after which the cosine begins
            ema_decay=0.999,
            ema_ramp=False,  # start the average at decay (1 + t) / (10 + t)
        ),
        train=config_dict.create(
            steps=65_104,  # optimiser updates
            batch_size=768,  # over all devices
            micro_batches=1,  # parts of a batch whose gradients are added up
            loss="stablemax",  # stablemax | softmax
            log_every=50,
            eval_every=5_000,  # 0 = only at the end
            checkpoint_every=1_000,
            keep_checkpoints=3,
            on_non_finite="halt",  # halt | skip | rollback: see docs/faults.md
            on_save_error="stop",  # stop | continue (and try again at the next save)
        ),
        eval=config_dict.create(
            batch_size=768,
            max_puzzles=5_000,  # during training: the first of the test set; 0 = all
            supervision_steps=0,  # 0 = model.max_supervision_steps
            votes=1,  # forms of each puzzle that are solved and voted over; 0 = all
        ),
        mesh=config_dict.create(
            data=0,  # shares of each batch; 0 = as many as the devices allow
            fsdp=1,  # devices among which each share is divided again, and the weights
        ),
    )
