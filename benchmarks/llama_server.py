"""llama.cpp's own server (the wheel `xllamacpp`) on a GGUF, for serving.py to ask.

    python benchmarks/llama_server.py FILE.gguf PORT SLOTS CONTEXT

float32 weights and cache, all cores, `SLOTS` texts side by side of `CONTEXT` tokens each.
"""

import os
import signal
import sys

import xllamacpp


def main():
    """Serve until it is ended."""
    file, port, slots, context = sys.argv[1], *map(int, sys.argv[2:5])
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.hostnames, params.port = ["127.0.0.1"], port
    params.n_parallel, params.n_ctx = slots, slots * context
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = os.cpu_count()
    server = xllamacpp.Server(params)
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    del server
    os._exit(0)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    main()
