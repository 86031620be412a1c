import torch, warnings
import pytest
from parameter_runs import *
def test_p(train):
    for full in ({"method.name":"full"},{"method.name":"freeze"}):
        try:
            o=train({**full,"model.compute_dtype":"float16"}); print("F16", kinds(o), o.losses)
        except Exception as e: print("F16 fails", repr(e)[:300])
    for seed in (1,2,None):
        o=train({"data.streaming":True,"training.data_seed":seed,"training.disable_shuffling":seed!=2, "training.max_steps":8}); print("STREAM data_seed",seed,o.rows)
    o=train({"data.streaming":True,"training.seed":7,"training.max_steps":8}); print("STREAM seed 7",o.rows)
    with warnings.catch_warnings(record=True) as w:
        warnings.simplefilter("always")
        o=train({"method.additional_target":"embed_tokens"}); 
        print("TIED", [str(x.message)[:160] for x in w if "tie" in str(x.message)], {n:tuple(v.shape) for n,v in o.changed().items() if "lora" not in n})
        m=o.trainer.model.get_base_model(); e=m.model.embed_tokens.modules_to_save["default"].weight; print("tied?", e.data_ptr()==m.lm_head.weight.data_ptr(), (e-m.lm_head.weight).abs().max())
        ids=torch.tensor([[5,6,7,8]]); o.trainer.model.eval()
        with torch.no_grad():
            before=o.trainer.model(ids).logits
            merged=o.trainer.model.merge_and_unload(); merged.save_pretrained("/tmp/merged_probe")
            from transformers import AutoModelForCausalLM
            after=AutoModelForCausalLM.from_pretrained("/tmp/merged_probe")(ids).logits
        print("MERGED diff", (before-after).abs().max())
    try: train({"training.lr_scheduler_type":"polynomial","training.learning_rate":5e-8})
    except Exception as e: print("POLY", repr(e))
