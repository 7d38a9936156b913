"""An experiment folder -> one self-contained HTML page, report.json and CSV tables.

Every part of the folder may be missing; its section is then left out or says "not run". Shares are in [0, 1].

    experiment.json   {"title", "command": text or list, "data": {"name", "classes": [...], any counts ...},
                       "wall_clock_hours", "cpu_hours", "config": {...}, "warnings": [...]}
    rows.json         {"primary": {"arm": "S3", "control": "R2"} or a list of these with "fraction" and "model",
                       "test_openings", "gan_variance_included", "lineage_checked", "leak_override", "gan_data",
                       "labels", "no_usable_codes": [fractions], "notes": [...], "imagenet_features",
                       "guard": [{"fraction", "model", "arm", "alpha", "guarded": the same or 0,
                                  "control": "R1" or "R2", "control_accuracy",
                                  "validation_accuracy": {alpha: accuracy}}], empty where alpha was not chosen,
                       "rows": [{"fraction", "arm", "model", "pair", "accuracy", "steps", "alpha", "top5",
                                 "macro_f1", "worst_class_accuracy", "ece", "per_class_accuracy": [...],
                                 "pool", "predictions": "cells/.../predictions.npz", "warnings": [...],
                                 "draw", "lineage": SHA-256 of the lineage.json of its synthetic images}]}
    budgets/<fraction>-<draw>.jsonl    and lineage.json files in synthetic/*/*, pools/* or lineages/*: what the verdicts
                       of synthetic arms stand on (`report.evidence`)
    evaluation.json   a list, or {"rows": list}, of {"metric", "value", "interval", "extractor", "n_real",
                       "n_fake", "split", "gan"}; also read from gan/<name>/evaluation.json
    audit.json        {"judge", "judge_accuracy", "mask_iou",
                       "classes": [{"class", "before", "after", "n_before", "n_after", "gan"}],
                       "codes": [{"code", "class", "purity", "margin", "n", "abstained", "gan"}]}; without it, the
                       audit.json of each gan/<name>/
    filter.json       {"rows": [{"class", "generated", "kept", "dropped": {reason: count}, "gan"}]}
    gan/<name>/       a run folder of the generator: config.json, metrics.jsonl, *.png, figures/*.png, and
                       quality.json {"class_consistency", "mask_iou", "judge_accuracy_on_drawings",
                       "segmenter_iou_on_drawings"}, where judges trained on drawn truth looked at it
    cells/<fraction>-<arm>-<model>-<pair>/metrics.jsonl    learning curves of the classifiers

The folder may also be a single run folder of the generator.
"""

from finegan_aug.report.page import write_report

__all__ = ["write_report"]
