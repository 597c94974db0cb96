import pytest

from cm3leon.corpus.avatar_labels import label_of
from cm3leon.corpus.captions import captions_of, main_caption, tier_of
from cm3leon.corpus.clipart_labels import choose_label, known_words, read_record
from cm3leon.corpus.drawings import Facts

KNOWN = known_words(frozenset(["cat", "tree", "house", "apple", "garden"]))
SVG = """<svg xmlns:dc="d" xmlns:rdf="r"><metadata>
<dc:title>{title}</dc:title>
<dc:creator><Agent><dc:title>Jane Painter</dc:title></Agent></dc:creator>
<rdf:Bag><rdf:li>{first}</rdf:li><rdf:li>{second}</rdf:li><rdf:li>jane</rdf:li></rdf:Bag>
</metadata></svg>"""


def facts(label="owl", **more):
    more = {"style": "flat emoji", "licence": "MIT", "author": "Ada", **more}
    return Facts(key="1", label=label, **more)


@pytest.fixture
def labelled(tmp_path):
    def labelled(title="", first="", second="", stem="x", path=()):
        file = tmp_path / "x.svg"
        file.write_text(SVG.format(title=title, first=first, second=second))
        return choose_label(read_record(file), stem, list(path), KNOWN)

    return labelled


class TestClipart:
    def test_a_title_of_known_words_is_the_label(self, labelled):
        assert labelled(title="Apple Tree (v2).svg") == "apple tree"
        assert labelled(title="House &amp;amp; garden 3") == "house garden"

    def test_else_the_file_name_without_its_author(self, labelled):
        assert labelled(title="zqx", stem="cat_jane_01") == "cat"
        assert labelled(title="symbol", stem="apple_tree") == "apple tree"

    def test_else_a_keyword_else_the_folder(self, labelled):
        assert labelled(first="animals", second="cat") == "cat"
        assert labelled(path=["plants", "oaks"]) == "oak"

    def test_without_words_there_is_no_label(self, labelled):
        assert labelled(title="x") == ""
        assert labelled(title="icon") == ""

    def test_keywords_name_no_people(self, tmp_path):
        (tmp_path / "x.svg").write_text(SVG.format(title="", first="Cat", second="cat"))
        assert read_record(tmp_path / "x.svg").keywords == ["cat"]


class TestAvatars:
    def test_hair_face_worn_and_clothes_in_this_order(self):
        traits = {
            "hair": "curlyBun",
            "hairColor": "#dc2828",
            "mouth": "bigSmile",
            "eyes": "sunglasses",
            "facialHair": "goatee",
            "body": "checkered",
            "clothingColor": "#3264dc",
        }
        assert label_of("personas", traits) == (
            "person with curly bun red hair with a big smile wearing sunglasses "
            "with a goatee in a blue checkered shirt"
        )

    def test_eyes_count_only_where_they_are_drawn_so(self):
        assert label_of("micah", {"eyes": "sunglasses", "hair": "fonze"}) == (
            "person with slicked-back hair"
        )

    def test_peeps_have_heads_and_faces(self):
        traits = {"head": "flatTopLong", "face": "smileBig", "clothingColor": "#46aa46"}
        assert label_of("open-peeps", traits) == (
            "person with a tall flat-top haircut and a big smile, in green clothes"
        )

    def test_bald_people_have_no_hair_colour(self):
        traits = {"hair": "bald", "hairColor": "#dc2828"}
        assert label_of("personas", traits) == "person who is bald"


class TestCaptions:
    def test_each_form_occurs_once(self):
        found = captions_of(
            facts(keywords=("bird", "owl", "night")), ("brown", "white"), ("barn owl",)
        )
        assert found == (
            "owl",
            "an owl, flat emoji",
            "a flat emoji of an owl",
            "a flat emoji of an owl, brown and white",
            "owl, bird, night",
            "barn owl",
        )

    def test_a_sentence_comes_first_without_its_full_stop(self):
        found = captions_of(facts(sentence="The owl sees by night."), ())
        assert found[0] == "The owl sees by night"
        assert main_caption(facts()) in found

    def test_lists_of_tags_have_no_article(self):
        assert main_caption(facts("night bird", tags=True)) == (
            "a flat emoji of night bird"
        )

    @pytest.mark.parametrize(
        ("source", "more", "grey", "tier"),
        [
            ("noto", {}, False, "core"),
            ("noto", {}, True, "mono"),
            ("noto", {"toned": True}, True, "skin"),
            ("icon-park", {"tags": True}, False, "icon"),
            ("meteocons", {}, False, "icon"),
            ("dicebear-micah", {}, True, "avatar"),
            ("endless-sky-land", {}, True, "core"),
        ],
    )
    def test_tiers(self, source, more, grey, tier):
        assert tier_of(source, facts(**more), grey=grey) == tier
