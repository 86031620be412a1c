"""The kinds of rows that stages train on."""

KINDS = ("text", "dialogue", "preference", "feedback", "prompt")
"""text: pt · dialogue: sft · preference: rm, dpo · feedback: kto · prompt: ppo."""

MEANING = {
    "text": "plain text",
    "dialogue": "dialogues with an answer",
    "preference": "pairs of a chosen and a rejected answer",
    "feedback": "answers with a true/false label",
    "prompt": "prompts",
}

REMEDY = {
    "text": "name the column of the text: columns {prompt: text}",
    "dialogue": "name the columns of the answer (response, messages), or choose the stage that fits",
    "preference": "set ranking: true and the columns chosen and rejected, or choose the stage that fits",
    "feedback": "name the column of the label (kto_tag), or choose the stage that fits",
    "prompt": "name the columns of the question (prompt, messages)",
}
