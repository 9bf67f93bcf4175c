"""What a trial does in its __init__: its rank's folder, downloaded once for all ranks of the machine."""
import os
import sys

import leat

source = leat.data_config()["source"]
folder = leat.download(source, os.path.join(sys.argv[1], f"data-rank{leat.rank()}"))
print(f"rank {leat.rank()} of {leat.world_size()}: {len(os.listdir(folder))} entries in {folder}")
