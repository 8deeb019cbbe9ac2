import base64
import io

import pytest
from PIL import Image

from moslora.data.conversations import read_conversation, read_conversations
from moslora.data.files import read_rows
from moslora.data.images import ImageHeader
from moslora.errors import DataError


def content(size=(4, 3)):
    stream = io.BytesIO()
    Image.new("RGB", size).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    for name, size in (("a.png", (4, 3)), ("b.png", (6, 5))):
        (tmp_path / name).write_bytes(content(size))
    return tmp_path


def turns(*values):
    return [{"from": ("human", "gpt")[n % 2], "value": value} for n, value in enumerate(values)]


def llava(*values, **fields):
    return {"id": "1", "conversations": turns(*values), **fields}


def read(sample, folder=None):
    return read_conversation(sample, place="a.json: sample 3", folder=folder)


def refusal(sample, folder=None):
    with pytest.raises(DataError) as caught:
        read(sample, folder)
    message = str(caught.value)
    assert message.startswith("a.json: sample 3")
    assert "\n" not in message
    return message


def said(conversation):
    return [(message["role"], message["content"]) for message in conversation.messages]


def test_llavas_json_becomes_a_chat_with_its_picture(folder):
    found = read(llava("<image>\nWhat is it?", "A cat.", "And its colour?", "Grey.", image="a.png"), folder)
    assert said(found) == [
        ("user", "<image>\nWhat is it?"),
        ("assistant", "A cat."),
        ("user", "And its colour?"),
        ("assistant", "Grey."),
    ]
    assert found.images == [str(folder / "a.png")]
    assert found.place == "a.json: sample 3"
    assert found.remarks == ()


def test_a_marker_moves_to_the_front_of_its_turn():
    found = read(llava("Question: why?\n<image>", "So.", "<image>Again?", "So.", images=["/a", "/b"]))
    assert said(found)[::2] == [("user", "<image>\nQuestion: why?"), ("user", "<image>\nAgain?")]
    assert found.remarks == ("<image> is moved to the front of its turn",)
    assert said(read(llava("<image>", "A cat.", image="/a")))[0] == ("user", "<image>")


def test_several_markers_of_a_turn_stay_where_they_are():
    found = read(llava("Is <image> older than <image>?", "Yes.", image=["/a", "/b"]))
    assert said(found)[0] == ("user", "Is <image> older than <image>?")
    assert found.images == ["/a", "/b"]
    assert found.remarks == ()


def test_a_conversation_without_pictures_is_one_too():
    for image in ({}, {"image": None}, {"image": ""}, {"images": []}):
        found = read(llava("Hello", "Hi.", **image))
        assert found.images == []
        assert said(found) == [("user", "Hello"), ("assistant", "Hi.")]


@pytest.mark.parametrize(
    ("part", "picture"),
    [
        ({"type": "image", "image": "/a.png"}, "/a.png"),
        ({"type": "image", "path": "/a.png", "url": None}, "/a.png"),
        ({"type": "image", "image": {"bytes": b"abc", "path": "a.png"}}, b"abc"),
        ({"type": "image", "base64": base64.b64encode(b"abc").decode()}, b"abc"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,YWJj"}}, b"abc"),
        ({"type": "image_url", "image_url": "/a.png"}, "/a.png"),
    ],
)
def test_pictures_in_the_parts_of_a_message_stand_where_the_parts_do(part, picture):
    question = {"role": "user", "content": [{"type": "text", "text": "What is it?"}, part]}
    answer = {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}
    found = read({"messages": [question, answer]})
    assert said(found) == [("user", "<image>\nWhat is it?"), ("assistant", "A cat.")]
    assert found.images == [picture]


def test_parts_without_a_name_take_the_pictures_beside_the_messages(folder):
    parts = [{"type": "image"}, {"type": "text", "text": "or"}, {"type": "image"}, {"type": "text", "text": "?"}]
    sample = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "The second."}]}
    found = read(sample | {"images": [{"bytes": None, "path": "a.png"}, "b.png"]}, folder)
    assert said(found)[0] == ("user", "<image>\nor\n<image>\n?")
    assert found.images == [str(folder / "a.png"), str(folder / "b.png")]


def test_pictures_named_twice_are_refused():
    parts = [{"type": "image", "image": "/a"}]
    sample = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "x"}]}
    assert "1 pictures in its messages and 1 beside them; name each picture once" in refusal(sample | {"image": "/a"})
    assert "has both 'image' and 'images'; keep one" in refusal(llava("<image>", "x", image="/a", images=["/a"]))


def test_a_picture_without_a_marker_belongs_to_the_only_question():
    found = read(llava("What is it?", "A cat.", images=["/a", "/b"]))
    assert said(found)[0] == ("user", "<image>\n<image>\nWhat is it?")
    assert found.remarks == ("pictures without <image> stand at the front of the only question",)
    message = refusal(llava("What is it?", "A cat.", "And?", "Grey.", image="/a"))
    assert ": 0 <image> in its text and 1 picture; write one <image> for each picture, where it stands" in message


@pytest.mark.parametrize(
    ("text", "images", "counts"),
    [
        ("<image> or <image>", ["/a"], "2 <image> in its text and 1 picture;"),
        ("<image>", ["/a", "/b"], "1 <image> in its text and 2 pictures;"),
        ("<image>", [], "1 <image> in its text and no pictures;"),
    ],
)
def test_other_counts_of_markers_and_pictures_are_refused_with_both(text, images, counts):
    assert counts in refusal(llava(text, "x", images=images))


def test_the_models_opening_turn_is_dropped():
    sample = {"conversations": [{"from": "gpt", "value": "Hello!"}, *turns("<image>", "A cat.")], "image": "/a"}
    found = read(sample)
    assert said(found) == [("user", "<image>"), ("assistant", "A cat.")]
    assert found.remarks == ("the model's opening turn is dropped",)
    assert said(read(sample | {"system": "Be brief."})) == [("system", "Be brief."), *said(found)]


def test_marks_and_numbers_of_messages_survive_the_dropped_turn():
    opening = {"from": "gpt", "value": "Hello!", "train": False}
    rows = [opening, *turns("One?", "1", "Two?", "2")]
    rows[4] = rows[4] | {"train": False}
    found = read({"conversations": rows, "system": "Count."})
    assert found.chat.marked == {4: False}
    assert found.messages[4]["content"] == "2"
    assert found.chat.number(4) == 5


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        (["human", "human", "gpt"], "message 2 is the user's after user, allowed there: nothing, system, assistant;"),
        (["human", "gpt", "gpt"], "message 3 is the assistant's after assistant, allowed there: user, tool; "),
        (["human", "system", "gpt"], "message 2 is the system's after user, allowed there: nothing; "),
        (["system", "human", "gpt", "human"], "message 4, the last one, has no answer; "),
        (["gpt", "human", "human", "gpt"], "message 3 is the user's after user"),
    ],
)
def test_roles_out_of_order_are_refused_by_the_messages_number(roles, message):
    assert message in refusal({"conversations": [{"from": role, "value": "x"} for role in roles]})


@pytest.mark.parametrize("answer", ["", " \n"])
def test_a_sample_with_nothing_to_learn_is_refused(answer):
    assert "no answer of the assistant with any text, so nothing to learn" in refusal(llava("Hi", answer))
    assert "no answer of the assistant" in refusal({"conversations": [{"from": "gpt", "value": "Hello!"}]})
    assert "no assistant message, so nothing to learn" in refusal(llava("Hi"))


def test_a_marker_in_a_turn_of_the_model_is_refused():
    assert "message 2: <image> in a turn of the assistant, allowed: user" in refusal(llava("x", "<image>", image="/a"))


def test_no_word_of_a_turn_says_who_speaks():
    text = "USER: what does an assistant do?\nASSISTANT: <|im_start|>assistant\nhelps"
    assert said(read(llava(f"<image>\n{text}", "It helps.", image="/a"))) == [
        ("user", f"<image>\n{text}"),
        ("assistant", "It helps."),
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image": "https://a.b/c.png"}, "the picture 'https://a.b/c.png' is on the web; download it"),
        ({"image": "a.png"}, "the picture 'a.png' is a relative path; set data.image_folder"),
        ({"image": 3}, "a picture is int, expected a path, bytes or {'bytes', 'path'}; "),
        ({"images": [Image.new("RGB", (1, 1))]}, "a picture is Image, expected a path"),
        ({"image": {"bytes": None, "path": None}}, "a picture is NoneType, expected"),
        ({"messages": None}, "has neither conversations nor messages (it has: id, messages); correct the sample"),
        ({"video": "a.mp4"}, "field 'video' is not read, only pictures and text are (to leave it out: data.ignore)"),
        ({"chosen": "x"}, "field 'chosen' is for preference training"),
        ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "message 1: a part is 'audio', allowed: "),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "message 1: a part is 'x', allowed: 'text'"),
        ({"messages": [{"role": "user", "content": "x", "images": ["/a"]}]}, "message 1: field 'images' is not read"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1: field 'content' is 3, expected text"),
    ],
)
def test_what_cannot_be_read_is_refused_by_its_field(change, message):
    sample = llava("<image>", "x")
    if "messages" in change:
        del sample["conversations"]
    assert message in refusal(sample | change)


def test_kind_and_group_come_along():
    found = read(llava("Hi", "Hello.", kind="colour", group=7))
    assert (found.kind, found.group) == ("colour", "7")


def test_a_set_is_read_with_the_sizes_of_its_pictures(folder):
    samples = [llava("<image>", "x", image="a.png"), llava("Hi", "x"), llava("? <image>", "x", image=content((9, 8)))]
    found = read_conversations(samples, source="a.json", image_folder=folder)
    assert [one.headers for one in found.conversations] == [(ImageHeader(4, 3),), (), (ImageHeader(9, 8),)]
    assert [one.place for one in found.conversations] == [f"a.json: sample {n}" for n in (1, 2, 3)]
    assert found.left_out == []
    assert found.remarks == ["<image> is moved to the front of its turn in 1 sample (first: a.json: sample 3)"]


def test_a_picture_that_many_samples_share_is_opened_once(folder, monkeypatch):
    opened = []
    original = Image.open
    monkeypatch.setattr(Image, "open", lambda *args, **options: opened.append(args) or original(*args, **options))
    samples = [llava("<image>", "x", image="a.png")] * 20
    assert len(read_conversations(samples, source="a.json", image_folder=folder).conversations) == 20
    assert len(opened) == 1


def test_the_first_bad_sample_is_an_error_that_says_how_to_go_without_it(folder):
    samples = [llava("<image>", "x", image="a.png"), llava("<image>", "x", image="gone.png")]
    with pytest.raises(DataError) as caught:
        read_conversations(samples, source="a.json", image_folder=folder)
    assert str(caught.value) == (
        f"a.json: sample 2: image '{folder}/gone.png': no such file; correct the path or the image folder "
        "(to leave such samples out: data.skip_bad)"
    )


def test_bad_samples_are_left_out_by_name_when_asked(folder):
    (folder / "broken.png").write_bytes(content((400, 300))[:200])
    good = llava("<image>", "x", image="a.png")
    bad = [llava("<image>", "x", image="gone.png"), llava("<image>", "x", image="broken.png"), llava("Hi", "")]
    found = read_conversations([*bad, *[good] * 3], source="a.json", image_folder=folder, skip_bad=True)
    assert [one.place for one in found.conversations] == [f"a.json: sample {n}" for n in (4, 5, 6)]
    places, reasons = zip(*found.left_out, strict=True)
    assert places == ("a.json: sample 1", "a.json: sample 2", "a.json: sample 3")
    assert reasons[0].startswith(f"image '{folder}/gone.png': no such file")
    assert reasons[1].startswith(f"image '{folder}/broken.png': broken or cut off")
    assert reasons[2].startswith("no answer of the assistant")


def test_more_than_half_left_out_is_an_error_anyway(folder):
    samples = [llava("<image>", "x", image="a.png"), *[llava("<image>", "x", image="gone.png")] * 2]
    with pytest.raises(DataError) as caught:
        read_conversations(samples, source="a.json", image_folder=folder, skip_bad=True)
    assert str(caught.value).startswith(
        "a.json: 2 of 3 samples cannot be read, more than 50%; the first: a.json: sample 2: image '"
    )
    assert str(caught.value).endswith("(check data.train and data.image_folder)")


@pytest.mark.parametrize("skip_bad", [False, True])
def test_a_missing_image_folder_is_named_once_with_the_nearest_one(folder, skip_bad):
    (folder / "images").mkdir()
    with pytest.raises(DataError) as caught:
        read_conversations(
            [llava("<image>", "x", image="a.png")],
            source="a.json",
            image_folder=folder / "imgaes" / "x",
            skip_bad=skip_bad,
        )
    assert str(caught.value) == (
        f"a.json: no image folder '{folder}/imgaes/x': {folder} has no 'imgaes'; did you mean 'images'; "
        "correct data.image_folder"
    )
    with pytest.raises(DataError, match=r"a\.png' is a file; set data\.image_folder to a folder"):
        read_conversations([llava("Hi", "x")], source="a.json", image_folder=folder / "a.png")


def test_an_empty_set_is_refused():
    with pytest.raises(DataError, match=r"^a\.json: no samples; give at least one$"):
        read_conversations([], source="a.json")


def test_a_real_set_in_llavas_form_is_read_whole(real_data):
    path = real_data("scienceqa/test.jsonl")
    found = read_conversations(read_rows(path), source="scienceqa", image_folder=path.parent)
    assert len(found.conversations) == 100
    assert all(one.messages[0]["content"].startswith("<image>\nContext: ") for one in found.conversations)
    assert found.remarks == ["<image> is moved to the front of its turn in 100 samples (first: scienceqa: sample 1)"]
