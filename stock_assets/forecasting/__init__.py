"""Labels, model, baseline, gate, registry, forecasts and scores: what decides and what is decided.

Frames and callables go in, frames come out: nothing here reads the lake by itself or imports
Dagster. Each rule (how days are split, how a loss is computed, which model is in force) lives in
one module and is imported by everyone who needs it.
"""
