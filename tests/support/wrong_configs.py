"""Configs that must be refused: words, environment, and what the answer must name."""

WRONG: dict[str, tuple[list[str], list[str]]] = {
    # a name that doesn't exist, with the nearest one that does
    "key": (["method.lora_rnk=8"], ["method.lora_rnk", "did you mean 'method.lora_rank'"]),
    "key in the wrong group": (["training.lora_rank=8"], ["training.lora_rank", "method.lora_rank"]),
    "key without its group": (["lora_rank=8"], ["lora_rank", "write method.lora_rank"]),
    "row of the specification that became a choice": (["finetuning_type=lora"], ["write method=CHOICE"]),
    "switch of the specification that became a choice": (["use_galore=true"], ["write optimizer=galore"]),
    "variable of the specification": (["API_PORT=8000"], ["write serve.port"]),
    "flag of the specification": (["--finetuning-type", "lora"], ["write method=CHOICE"]),
    "group": (["trainig.seed=1"], ["no such group 'trainig'", "training.seed"]),
    "sweep of what answers": (["-m", "job=api", "model=tiny", "serve.port=1,2"], ["job=api", "leave -m out"]),
    "choices that a page does not read": (
        ["job=webui", "stage=dpo", "rlhf=ipo"],
        ["stage=dpo: has no effect", "rlhf=ipo: has no effect"],
    ),
    "choice of a stage": (["stage=dop"], ["stage=dop", "did you mean 'dpo'"]),
    "choice of a method": (["method=lroa"], ["method=lroa", "did you mean 'lora'"]),
    "choice of an optimizer": (["optimizer=adam"], ["optimizer=adam", "adamw"]),
    "choice of a model": (["model=tyni"], ["model=tyni", "tiny"]),
    "choice of data": (["data=paht"], ["data=paht", "did you mean 'path'?"]),
    "choice of a demo": (["demo=dp"], ["demo=dp", "did you mean 'dpo'?"]),
    "choice of tracking": (["tracking=[wandb,mlfow]"], ["tracking=mlfow", "did you mean 'mlflow'"]),
    "choice of a job": (["job=chekc"], ["job=chekc", "did you mean 'check'"]),
    "choice of an experiment": (["experiment=nothing"], ["experiment=nothing"]),
    "study": (["--config-name", "lora_rnk"], ["lora_rnk", "did you mean 'lora_rank'"]),
    "command": (["explian", "pref_beta"], ["explian", "did you mean 'explain'"]),
    "plus on a new key": (["+method.rank=8"], ["method.rank", "no such parameter"]),
    "plus on a known key": (["+method.lora_rank=8"], ["write method.lora_rank=8"]),
    "deletion": (["~method.lora_rank"], ["~method.lora_rank", "cannot be taken out"]),
    "choice by its name": (["stage.name=dpo"], ["stage.name=dpo", "write stage=dpo"]),
    "a sweep without -m": (
        ["model.adapter_name_or_path=a,b"],
        ["add -m", "\"model.adapter_name_or_path='a,b'\""],
    ),
    "syntax": (["method.lora_target=[q"], ["cannot be read", "quote"]),
    "file beyond ASCII that isn't there": (
        ["model=tiny", "data.dataset=données.jsonl"],
        ["data.dataset=données.jsonl: there is no such file"],
    ),
    # what the disk tells
    "adapter without an owner": (
        ["model=tiny", "model.adapter_name_or_path=nope"],
        ["model.adapter_name_or_path=nope: is no folder that is there, and no owner/name on a hub"],
    ),
    "model of no hub": (
        ["model=path", "model.model_name_or_path=models/mine/best"],
        [
            "model.model_name_or_path=models/mine/best: is no folder that is there, and no name that a hub can hold"
        ],
    ),
    "a whole disk as a dataset": (
        ["model=tiny", "data.dataset=/"],
        ["data.dataset=/: / holds more than 100000 files"],
    ),
    "folder of others for tokenized data": (
        ["model=tiny", "data.tokenized_path=/etc"],
        ["data.tokenized_path=/etc: exists, and holds no tokenized data of ours"],
    ),
    "file as the folder of tokenized data": (
        ["model=tiny", "data.tokenized_path=/etc/passwd/x"],
        ["data.tokenized_path=/etc/passwd/x: "],
    ),
    # a type
    "int": (["method.lora_rank=abc"], ["method.lora_rank=abc", "int"]),
    "int that is a fraction": (["method.lora_rank=8.5"], ["method.lora_rank=8.5", "int"]),
    "float": (["training.learning_rate=fast"], ["training.learning_rate=fast", "float"]),
    "bool": (["training.plot_loss=perhaps"], ["training.plot_loss=perhaps", "bool"]),
    "null where none is allowed": (["data.cutoff_len=null"], ["data.cutoff_len=null", "int"]),
    "list for a number": (["training.seed=[1,2]"], ["training.seed", "int"]),
    "mapping for text": (["data.dataset={a: 1}"], ["data.dataset", "str"]),
    # a range
    "rank": (["method.lora_rank=0"], ["method.lora_rank=0", ">= 1"]),
    "count beyond 32 bits": (
        ["training.max_steps=99999999999999999999999999"],
        ["training.max_steps=99999999999999999999999999: must be at most 2147483647"],
    ),
    "alpha": (["method.lora_alpha=-1"], ["method.lora_alpha=-1", ">= 0"]),
    "dropout": (["method.lora_dropout=1.0"], ["method.lora_dropout=1", "[0, 1)"]),
    "beta": (["stage=dpo", "rlhf.pref_beta=0"], ["rlhf.pref_beta=0", "> 0"]),
    "label smoothing": (
        ["stage=dpo", "rlhf.dpo_label_smoothing=0.7"],
        ["rlhf.dpo_label_smoothing=0.7", "[0, 0.5]"],
    ),
    "learning rate": (["training.learning_rate=-1e-4"], ["training.learning_rate", "> 0"]),
    "batch": (["training.per_device_train_batch_size=0"], ["training.per_device_train_batch_size=0", ">= 1"]),
    "steps": (["training.max_steps=-2"], ["training.max_steps=-2", ">= -1"]),
    "warm-up": (["training.warmup_ratio=1.5"], ["training.warmup_ratio=1.5", "[0, 1)"]),
    "Adam's beta": (["optimizer.adam_beta1=1"], ["optimizer.adam_beta1=1", "[0, 1)"]),
    "weight decay": (["optimizer.weight_decay=-0.1"], ["optimizer.weight_decay=-0.1", ">= 0"]),
    "cutoff": (["data.cutoff_len=0"], ["data.cutoff_len=0", ">= 1"]),
    "samples": (["data.max_samples=0"], ["data.max_samples=0", ">= 1"]),
    "held out": (["data.val_size=-1"], ["data.val_size=-1", ">= 0"]),
    "probability": (["generation.top_p=1.5"], ["generation.top_p=1.5", "(0, 1]"]),
    "port": (["serve.port=70000"], ["serve.port=70000", "[0, 65535]"]),
    "shots": (["evaluation.n_shot=-1"], ["evaluation.n_shot=-1", ">= 0"]),
    "size of a file": (["export.export_size=0"], ["export.export_size=0", ">= 1"]),
    "pixels": (["processor.image_max_pixels=0"], ["processor.image_max_pixels=0", ">= 1"]),
    "bits": (["quantization.quantization_bit=16"], ["quantization.quantization_bit=16", "[1, 8]"]),
    "threads": (["launch.omp_num_threads=0"], ["launch.omp_num_threads=0", ">= 1"]),
    # a choice of values
    "loss": (["stage=dpo", "rlhf.pref_loss=hing"], ["rlhf.pref_loss=hing", "did you mean 'hinge'"]),
    "attention": (["model.flash_attn=fa3"], ["model.flash_attn=fa3", "sdpa"]),
    "schedule": (["training.lr_scheduler_type=cosin"], ["lr_scheduler_type=cosin", "did you mean 'cosine'"]),
    "dtype": (["model.compute_dtype=float8"], ["model.compute_dtype=float8", "bfloat16"]),
    "mixing": (["data.mix_strategy=interleave"], ["data.mix_strategy=interleave", "interleave_"]),
    "verbosity": (["launch.verbosity=LOUD"], ["launch.verbosity=LOUD", "DEBUG"]),
    "one of a sweep": (
        ["-m", "stage=dpo", "rlhf.pref_loss=sigmoid,hing"],
        ["rlhf.pref_loss=hing", "'hinge'"],
    ),
    # declared, not built yet
    "qlora on whole weights": (
        ["method=qlora", "quantization=none"],
        ["quantization=none: sets quantization.quantization_bit=null, and method=qlora sets it to 4"],
    ),
    "parameter not built": (["training.fp16=true"], ["training.fp16=true", "not built yet"]),
    "parameter of other jobs": (
        ["model.infer_dtype=float16"],
        ["model.infer_dtype=float16: has no effect with job=train"],
    ),
    # a stage used the wrong way
    "smoothing of another loss": (
        ["stage=dpo", "rlhf.pref_loss=hinge", "rlhf.dpo_label_smoothing=0.1"],
        ["rlhf.dpo_label_smoothing=0.1", "no effect", "rlhf.pref_loss=sigmoid"],
    ),
    "margin of another loss": (
        ["stage=dpo", "rlhf.simpo_gamma=1"],
        ["rlhf.simpo_gamma=1", "rlhf.pref_loss=simpo"],
    ),
    "reference of a loss without": (
        ["stage=dpo", "rlhf=orpo", "rlhf.ref_model=builtin:tiny"],
        ["rlhf.ref_model=builtin:tiny", "rlhf.pref_loss=orpo uses no reference"],
    ),
    "reference that isn't there": (
        ["stage=dpo", "rlhf.ref_model=./none"],
        ["rlhf.ref_model=./none", "no such folder"],
    ),
    "adapter that isn't there": (
        ["stage=kto", "rlhf.ref_model_adapters=./none"],
        ["ref_model_adapters=./none", "no such"],
    ),
    "bits of the reference": (
        ["stage=dpo", "rlhf.ref_model_quantization_bit=6"],
        ["ref_model_quantization_bit=6", "4 or 8"],
    ),
    "answers marked good or bad in dpo": (
        ["stage=dpo", "data.dataset=demo_feedback"],
        ["demo_feedback", "chosen"],
    ),
    "pairs in kto": (["stage=kto", "data.dataset=demo_preference"], ["demo_preference", "kto_tag"]),
    "weight of another stage": (
        ["stage=dpo", "rlhf.kto_chosen_weight=2"],
        ["rlhf.kto_chosen_weight=2", "stage=kto"],
    ),
    "layers of another method": (
        ["method=lora", "method.freeze_trainable_layers=1"],
        ["no effect", "method=freeze"],
    ),
    "early stopping without evaluation": (
        ["training.eval_strategy=no", "data.val_size=0", "training.early_stopping_patience=2"],
        ["training.early_stopping_patience=2", "training.eval_strategy=steps"],
    ),
    "generation without need": (
        ["stage=sft", "generation.top_k=5"],
        ["generation.top_k=5", "predict_with_generate"],
    ),
    "seed": (["training.seed=4294967296"], ["training.seed=4294967296", "[0, 4294967295]"]),
    "seed of the data": (["training.data_seed=4294967296"], ["training.data_seed=4294967296", "4294967295]"]),
    # without effect, contradictory, missing
    "mixing of one dataset": (
        ["data.mix_strategy=interleave_under", "data.dataset=demo_instruct"],
        [
            "data.mix_strategy=interleave_under: has no effect",
            "data.dataset=demo_instruct is the only dataset",
        ],
    ),
    "folder of media": (["data.media_dir=/nope"], ["data.media_dir=/nope: there is no such folder"]),
    "folder of datasets": (
        ["data.dataset_dir=/nope", "data.dataset=./a.jsonl"],
        ["data.dataset_dir=/nope: there is no such folder"],
    ),
    "cache of a built-in model": (
        ["stage=dpo", "model=tiny", "model.cache_dir=/proc/x"],
        ["model.cache_dir=/proc/x: has no effect", "model.model_name_or_path=builtin:tiny comes from no hub"],
    ),
    "other stage": (["stage=sft", "rlhf.pref_beta=0.2"], ["rlhf.pref_beta=0.2", "no effect", "stage=dpo"]),
    "other method": (
        ["method=full", "method.lora_rank=4"],
        ["method.lora_rank=4", "no effect", "method=lora"],
    ),
    "other optimizer": (
        ["optimizer=sgd", "optimizer.adam_beta1=0.8"],
        ["optimizer.adam_beta1=0.8", "optimizer=adamw"],
    ),
    "two warm-ups": (
        ["training.warmup_steps=5", "training.warmup_ratio=0.1"],
        ["training.warmup_steps=5", "training.warmup_ratio"],
    ),
    "evaluation without rows": (["data.val_size=0"], ["training.eval_strategy=steps", "data.val_size"]),
    "two sources of evaluation": (
        ["data.eval_dataset=demo_instruct", "data.val_size=10"],
        ["data.val_size", "data.eval_dataset"],
    ),
    "share above 1": (["data.val_size=1.5"], ["data.val_size=1.5", "whole number"]),
    "scaling by nothing": (["method.lora_alpha=0"], ["method.lora_alpha=0", "nothing would be learned"]),
    "two precisions": (
        ["training.pure_bf16=true", "model.compute_dtype=float32"],
        ["training.pure_bf16=true"],
    ),
    "module twice": (["method.lora_target='q_proj,q_proj'"], ["method.lora_target", "twice"]),
    "no model": (["model=path"], ["model.model_name_or_path=null", "model=tiny"]),
    "built-in model": (
        ["model=path", "model.model_name_or_path=builtin:smol"],
        ["builtin:smol", "builtin:smollm2"],
    ),
    "model folder": (["model=path", "model.model_name_or_path=./none"], ["./none", "no such folder"]),
    "dataset": (["data.dataset=demo_instrct"], ["data.dataset=demo_instrct", "did you mean 'demo_instruct'"]),
    "data of another stage": (["stage=dpo", "data.dataset=demo_instruct"], ["demo_instruct", "chosen"]),
    "checkpoint": (["training.resume_from_checkpoint=./none"], ["training.resume_from_checkpoint=./none"]),
}

WRONG_ENVIRONMENT: dict[str, tuple[dict[str, str], list[str]]] = {
    "type": ({"API_PORT": "abc"}, ["serve.port (from API_PORT)=abc", "int"]),
    "choice": ({"LLAMAFACTORY_VERBOSITY": "LOUD"}, ["LLAMAFACTORY_VERBOSITY", "LOUD", "DEBUG"]),
    "no NPU": ({"NPU_JIT_COMPILE": "1"}, ["launch.npu_jit_compile (from NPU_JIT_COMPILE)=true", "torch_npu"]),
    "not an NPU either": ({"ASCEND_RT_VISIBLE_DEVICES": "0"}, ["ASCEND_RT_VISIBLE_DEVICES", "torch_npu"]),
    "no GPU for its allocator": (
        {"OPTIM_TORCH": "1"},
        ["launch.optim_torch (from OPTIM_TORCH)=true", "no GPU"],
    ),
    "no GPU to look at": ({"RECORD_VRAM": "1"}, ["tracking.record_vram (from RECORD_VRAM)=true", "no GPU"]),
    "not built": ({"NNODES": "2"}, ["launch.nnodes", "not built yet"]),
}
