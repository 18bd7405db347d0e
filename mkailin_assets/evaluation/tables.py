"""Tables of the evaluation stage."""

import dataframely as dy


class BenchmarkResult(dy.Schema):
    """Accuracy of one model on one benchmark under one protocol, with 95% intervals."""

    benchmark = dy.String(primary_key=True, description="Name of the benchmark file")
    protocol = dy.String(
        primary_key=True, description="reasoning_required (with contexts) or question_only (without)"
    )
    model = dy.String(primary_key=True, description="majority, extractive agents, base or finetuned")
    items = dy.Int64(min=1, description="Questions asked")
    accuracy = dy.Float64(min=0, max=1, description="Share answered as the experts did")
    accuracy_low = dy.Float64(min=0, max=1, description="Lower end of the 95% interval")
    accuracy_high = dy.Float64(min=0, max=1, description="Upper end of the 95% interval")
    macro_f1 = dy.Float64(min=0, max=1, description="Mean F1 of yes, no and maybe")
    macro_f1_low = dy.Float64(min=0, max=1, description="Lower end of the 95% interval")
    macro_f1_high = dy.Float64(min=0, max=1, description="Upper end of the 95% interval")
