"""The strongest honest rivals, one a file, in plain PyTorch: none of them imports ntkfast.

* ``torch_func``: ``vmap(grad(·))`` of a residual made by ``torch.func``, over points in chunks.
* ``per_row``: one ``backward`` per residual row.
* ``unfused``: the formulas of the native core (collapsed jets, pull-back, factors), one torch call per step of them.
* ``autograd_step``: a training step whose derivatives are nested calls of autograd.
* ``compiled_step``: that step for ``torch.compile``.
"""
