version: str
torch_version: str
compiler: str
cpu_levels: tuple[str, ...]
cuda_built: bool
cuda_architectures: tuple[str, ...]

def isa() -> str: ...
