"""Write down what MiniLM makes of some sentences, in `data/minilm_sentences.safetensors`, so that a check needs no PyTorch.

    python data/record_minilm.py

Needs the extra `nlp`. `ids`: int16 [sentences, words], 0 behind the end. `mean`, `first`: float32 [sentences, 384], the mean of
the words' vectors, and the vector of the first word.
"""

from __future__ import annotations

from pathlib import Path

import torch
from build_dataset import write_sums
from safetensors.numpy import save_file

import course_utils as cu

TARGET = Path(__file__).with_name("minilm_sentences.safetensors")
SENTENCES = """The train to the coast leaves at seven.
Our flight was delayed by two hours.
She bought three apples and a loaf of bread.
The market closes early on Sundays.
A dog barked all night behind the house.
Two cats are asleep on the warm roof.
The doctor told him to rest for a week.
Take one tablet after each meal.
Snow fell in the mountains before dawn.
The river rose after days of heavy rain.
He plays the piano in a small bar.
The orchestra practised the second movement again.
Prices went up, and wages did not.
The central bank kept its rate unchanged.
My bicycle has a flat tyre.
The mechanic repaired the brakes of our car.
Children learn a language by listening.
The teacher wrote the answer on the board.
Boil the water, then add salt and rice.
This soup needs a little more pepper.
They painted the kitchen yellow.
The architect drew a house with a round tower.
The server did not answer the request.
Restart the computer after the update.
A new telescope looks at distant galaxies.
The moon was hidden by thin clouds.
The goalkeeper saved a penalty in the last minute.
She won the race by half a second.
The court decided in favour of the tenant.
A witness described the man in the grey coat.
We planted beans along the fence.
Bees visit the lavender in the afternoon.
The novel begins with a letter from a stranger.
He returned the book to the library too late.
Turn left at the church, and cross the bridge.
The map shows an old path through the forest.
The phone battery lasts a day and a half.
Charge the camera before the wedding.
Elections will be held in the spring.
The mayor opened the new swimming pool.
The baker starts work at three in the morning.
Fresh bread smells better than any flower.
Whales sing to each other over hundreds of miles.
The fishermen came back with empty nets.
Please send the invoice to the head office, with the number of the order and the date of delivery.
After the long meeting, nobody remembered what had been decided about the second item on the list.
Hello.
Good night!""".splitlines()


def main() -> None:
    folder = cu.minilm()
    from transformers import AutoModel, AutoTokenizer

    tokens = AutoTokenizer.from_pretrained(folder)(SENTENCES, padding=True, return_tensors="pt")
    ids, mask = tokens["input_ids"], tokens["attention_mask"]
    with torch.no_grad():
        words = AutoModel.from_pretrained(folder).eval()(input_ids=ids, attention_mask=mask).last_hidden_state
    mean = (words * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
    first = words[:, 0].contiguous()
    assert torch.equal(ids != 0, mask == 1)
    save_file({"ids": ids.to(torch.int16).numpy(), "mean": mean.numpy(), "first": first.numpy()}, TARGET)
    write_sums()


if __name__ == "__main__":
    main()
