"""Tiny files in every raw layout, made by hand: what the readers' tests read and the fuzz damages."""

import gzip
import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Layout:
    """One published layout.

    Attributes:
        reader: name of the reader.
        files: name -> bytes.
        inputs: what is passed as inputs; "." is the folder.
        options: option -> value; values that name a file are passed as its path.
        expected: user -> items, oldest first.
        texts: item -> text.
        times: user -> seconds, aligned with expected; None where the layout has no times.
    """

    reader: str
    files: dict[str, bytes]
    inputs: list[str]
    expected: dict[str, list[str]]
    texts: dict[str, str] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)
    times: dict[str, list[int]] | None = None

    def write(self, folder: Path) -> tuple[list[Path], dict[str, object]]:
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        options = {
            key: folder / value if isinstance(value, str) and value in self.files else value
            for key, value in self.options.items()
        }
        return [folder / name for name in self.inputs], options


def lines(*objects: dict) -> bytes:
    return "".join(json.dumps(one) + "\n" for one in objects).encode()


U_ITEM = "1|Toy Story (1995)|01-Jan-1995||http://x|0|0|0|1|1|1|0|0|0|0|0|0|0|0|0|0|0|0|0\n"
U_ITEM += "2|Café (1990)|01-Jan-1990||http://x|0|0|0|0|0|0|0|0|1|0|0|0|0|0|0|0|0|0|0\n"
YELP = [("u1", "b1", "2019-03-01 12:30:05"), ("u1", "b2", "2019-03-01 12:30:04"), ("u2", "b1", "2018-01-01")]
TMALL = b"user_id,item_id,cat_id,seller_id,brand_id,time_stamp,action_type\n"
RETAIL = b"InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\r\n"

LAYOUTS = {
    "amazon2018-ratings": Layout(
        "amazon2018",
        {
            "Toys.csv": b"i2,u1,5.0,200\ni1,u1,4.0,100\ni1,u2,1.0,300\ni3,u1,3.0,200\n",
            "meta_Toys.json.gz": gzip.compress(
                lines(
                    {"asin": "i1", "title": "Car &amp; Co..", "category": ["Toys", "Cars"], "brand": "Acme"},
                    {"asin": "i2", "title": "Doll", "category": [], "also_buy": ["i1"]},
                    {"asin": "i1", "title": "again"},
                )
            ),
        },
        ["Toys.csv"],
        {"u1": ["i1", "i2", "i3"], "u2": ["i1"]},
        {"i1": "Car & Co. Toys Cars. Acme.", "i2": "Doll."},
        {"items": "meta_Toys.json.gz"},
        {"u1": [100, 200, 200], "u2": [300]},
    ),
    "amazon2018-reviews": Layout(
        "amazon2018",
        {
            "Toys.json.gz": gzip.compress(
                lines(
                    {"overall": 5.0, "reviewerID": "u1", "asin": "i2", "unixReviewTime": 200, "reviewText": "a, b\n"},
                    {"overall": 4, "reviewerID": "u1", "asin": "i1", "unixReviewTime": 100, "style": {"Size:": " 3"}},
                )
            )
        },
        ["Toys.json.gz"],
        {"u1": ["i1", "i2"]},
        times={"u1": [100, 200]},
    ),
    "amazon2023-reviews": Layout(
        "amazon2023",
        {
            "Toys.jsonl": lines(
                {"rating": 5.0, "parent_asin": "p1", "asin": "a1", "user_id": "u1", "timestamp": 2999, "images": []},
                {"rating": 1.0, "parent_asin": "p2", "asin": "a2", "user_id": "u1", "timestamp": 1000},
            ),
            "meta_Toys.jsonl": lines(
                {"parent_asin": "p1", "title": "Car", "categories": ["Toys", "Cars"], "store": None, "price": 1.0},
                {"parent_asin": "p2", "title": "", "categories": [], "store": "Acme", "price": "from 3"},
            ),
        },
        ["Toys.jsonl"],
        {"u1": ["p2", "p1"]},
        {"p1": "Car. Toys Cars.", "p2": "Acme."},
        {"items": "meta_Toys.jsonl"},
        {"u1": [1, 2]},
    ),
    "amazon2023-ratings": Layout(
        "amazon2023",
        {"Toys.csv.gz": gzip.compress(b"user_id,parent_asin,rating,timestamp\nu1,p1,5.0,2000\nu1,p2,1.0,1000\n")},
        ["Toys.csv.gz"],
        {"u1": ["p2", "p1"]},
        times={"u1": [1, 2]},
    ),
    "movielens-100k": Layout(
        "movielens",
        {
            "u.data": b"196\t2\t3\t881250949\n186\t1\t3\t891717742\n196\t1\t5\t881250949\n",
            "u.item": U_ITEM.encode("latin-1"),
        },
        ["."],
        {"196": ["2", "1"], "186": ["1"]},
        {"1": "Toy Story (1995). Animation Children's Comedy.", "2": "Café (1990). Drama."},
        times={"196": [881250949, 881250949], "186": [891717742]},
    ),
    "movielens-1m": Layout(
        "movielens",
        {
            "ratings.dat": b"1::2::5::978300760\n1::1::3::978300700\n",
            "movies.dat": "1::Alien: Part 1 (1979)::Horror|Sci-Fi\n2::Café (1990)::Drama\n".encode("latin-1"),
        },
        ["."],
        {"1": ["1", "2"]},
        {"1": "Alien: Part 1 (1979). Horror Sci-Fi.", "2": "Café (1990). Drama."},
        times={"1": [978300700, 978300760]},
    ),
    "movielens-20m": Layout(
        "movielens",
        {
            "ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n1,29,0.5,1112484676\n",
            "movies.csv": 'movieId,title,genres\n2,"Café, The (1990)",(no genres listed)\n29,"A ""B""",War\n'.encode(),
        },
        ["."],
        {"1": ["29", "2"]},
        {"2": "Café, The (1990).", "29": "A B. War."},
        times={"1": [1112484676, 1112486027]},
    ),
    "steam": Layout(
        "steam",
        {
            "steam_reviews.json.gz": gzip.compress(
                rb"""{u'username': u'bo\'b', u'product_id': u'20', u'text': u"'date'", u'date': u'2015-01-02'}
{"product_id": u'10', u'early_access': False, u'page': 1, u'date': u'2015-01-01', u'username': u"bo'b", u'x': None}
{u'username': u'\u30c6\xe9', u'product_id': u'10', u'date': u'2015-01-01', u'text': u'\\'}
"""
            ),
            "steam_games.json.gz": gzip.compress(
                b"{u'id': u'10', u'title': u'Half', u'genres': [u'A', u'B'], u'price': 4.99}\n{u'title': u'no id'}\n"
                b"{u'id': u'20', u'developer': u'V'}\n"
            ),
        },
        ["steam_reviews.json.gz"],
        {"bo'b": ["10", "20"], "テé": ["10"]},
        {"10": "Half. A B.", "20": "V."},
        {"items": "steam_games.json.gz"},
        {"bo'b": [1420070400, 1420156800], "テé": [1420070400]},
    ),
    "yelp": Layout(
        "yelp",
        {
            "review.json": lines(*({"user_id": u, "business_id": b, "stars": 4, "date": d} for u, b, d in YELP)),
            "business.json": lines(
                {"business_id": "b1", "name": "Joe's", "categories": "Pubs, Bars", "hours": {"Monday": "0:0"}},
                {"business_id": "b2", "name": "Ann", "categories": None},
            ),
        },
        ["review.json"],
        {"u1": ["b2", "b1"], "u2": ["b1"]},
        {"b1": "Joe's. Pubs, Bars.", "b2": "Ann."},
        {"items": "business.json"},
        {"u1": [1551443404, 1551443405], "u2": [1514764800]},
    ),
    "tmall": Layout(
        "tmall",
        {"user_log_format1.csv": TMALL + b"1,20,3,4,5,1111,2\n1,10,3,4,,829,2\n1,30,3,4,5,829,0\n2,10,3,4,5,512,2\n"},
        ["user_log_format1.csv"],
        {"1": ["10", "20"], "2": ["10"]},
        times={"1": [1409270400, 1415664000], "2": [1399852800]},
    ),
    "taobao": Layout(
        "taobao",
        {"UserBehavior.csv": b"1,20,3,pv,1511600000\n1,10,3,pv,1511540000\n1,10,3,buy,1511540000\n1,10,3,pv,-9\n"},
        ["UserBehavior.csv"],
        {"1": ["10", "20"]},
        times={"1": [1511540000, 1511600000]},
    ),
    "netflix-combined": Layout(
        "netflix",
        {
            "combined_data_1.txt": b"1:\n7,3,2005-09-06\n8,5,2005-09-07\n2:\n7,4,2005-09-05\n",
            "combined_data_2.txt": b"3:\n7,4,2005-09-06\n",
            "movie_titles.csv": "1,2003,Dino, the Café\n2,NULL,X\n".encode("latin-1"),
        },
        ["."],
        {"7": ["2", "1", "3"], "8": ["1"]},
        {"1": "Dino, the Café.", "2": "X."},
        {"items": "movie_titles.csv"},
        {"7": [1125878400, 1125964800, 1125964800], "8": [1126051200]},
    ),
    "netflix-movies": Layout(
        "netflix",
        {"mv_0000001.txt": b"1:\n7,3,2005-09-06\n", "mv_0000002.txt": b"2:\n7,3,2005-09-05\n"},
        ["."],
        {"7": ["2", "1"]},
        times={"7": [1125878400, 1125964800]},
    ),
    "million-songs": Layout(
        "million-songs",
        {
            "train_triplets.txt": b"u1\tS2\t1\nu1\tS1\t12\nu2\tS1\t3\n",
            "unique_tracks.txt": "T1<SEP>S1<SEP>Björk<SEP>Jóga\nT9<SEP>S1<SEP>o<SEP>t\nT2<SEP>S2<SEP>X<SEP>\n".encode(),
        },
        ["train_triplets.txt"],
        {"u1": ["S2", "S1"], "u2": ["S1"]},
        {"S1": "Jóga. Björk.", "S2": "X."},
        {"items": "unique_tracks.txt"},
    ),
    "online-retail": Layout(
        "online-retail",
        {
            "Online Retail.csv": RETAIL
            + b'536365,85123A,"WHITE HEART, T-LIGHT ",6,12/1/2010 8:26,2.55,17850,United Kingdom\r\n'
            + b"536365,71053,\xa3 LANTERN,6,12/1/2010 8:26,3.39,,United Kingdom\r\n"
            + b"C536379,D,Discount,-1,12/1/2010 9:41,27.5,14527,United Kingdom\r\n"
            + b"536414,22139,,56,12/1/2010 11:52,0,,United Kingdom\r\n"
            + b"536415,85123A,ANOTHER NAME,1,2010-12-01 11:53:00,2.55,1,France\r\n"
        },
        ["Online Retail.csv"],
        {"536365": ["85123A", "71053"], "536415": ["85123A"]},
        {"85123A": "white heart, t-light.", "71053": "£ lantern."},
        times={"536365": [1291191960, 1291191960], "536415": [1291204380]},
    ),
    "sequence-text": Layout(
        "sequence-text",
        {
            "Beauty.txt": b"1 3 1  2\n2 1\n",
            "item2attributes.json": b'{"1": [7, 8], "3": []}',
            "names.json": b'{"Makeup": 7, "Nails": 8}',
        },
        ["Beauty.txt"],
        {"1": ["3", "1", "2"], "2": ["1"]},
        {"1": "Makeup Nails.", "3": ""},
        {"attributes": "item2attributes.json", "attribute_names": "names.json"},
    ),
    "recbole": Layout(
        "recbole",
        {
            "ml.inter": b"user_id:token\titem_id:token\trating:float\ttimestamp:float\nu\tb\t3\t7.5\nu\ta\t3\t7\n",
            "ml.item": b'item_id:token\ttitle:token_seq\tclass:token_seq\na\tA "quoted" one\tx\nb\t\ty\n',
        },
        ["ml.inter"],
        {"u": ["b", "a"]},
        {"a": "A quoted one.", "b": ""},
        {"items": "ml.item"},
        {"u": [7, 7]},
    ),
}  # fmt: skip


@pytest.fixture(params=LAYOUTS, ids=str)
def layout(request) -> Layout:
    """Every layout in turn."""
    return LAYOUTS[request.param]


@pytest.fixture
def layouts() -> dict[str, Layout]:
    """All of them by name."""
    return LAYOUTS
