"""The four shapes of work, for blockyard and daisy alike; no imports, since daisy's environment reads it too.

Blocks write 16 x 16 x 16 voxels. `side` is the number of blocks on each axis of a task.
"""

SHAPES = ("independent", "halo", "chain", "chain-halo")
STRIDE = 16
CONTEXT = 4


def boxes(shape, side):
    """Give ((offset, shape) of total, read and write ROI, conflict) for each task, in order of the chain."""
    stride, context = (STRIDE,) * 3, (CONTEXT,) * 3
    write = ((0, 0, 0), stride)
    plain = (((0, 0, 0), (side * STRIDE,) * 3), write, write, False)
    grown = (
        (tuple(-c for c in context), (side * STRIDE + 2 * CONTEXT,) * 3),
        (tuple(-c for c in context), (STRIDE + 2 * CONTEXT,) * 3),
        write,
    )
    if shape == "independent":
        return [plain]
    if shape == "halo":
        return [(*grown, True)]
    if shape == "chain":
        return [plain, plain]
    return [plain, (*grown, False)]


def blocks_of(shape, side):
    """Give the number of blocks, of all tasks together."""
    return side**3 * (2 if shape.startswith("chain") else 1)


def side_for(shape, blocks):
    """Give the side with the number of blocks that is nearest."""
    each = blocks / (2 if shape.startswith("chain") else 1)
    return max(2, round(each ** (1 / 3)))
