"""The sample gallery: products drawn from nothing but this code, the same at every run."""

from __future__ import annotations

from dataclasses import dataclass

from service.demo.designs import Design
from service.demo.forms import Body, forms
from service.drawing import Colour


@dataclass(frozen=True)
class Pack:
    """A product: what it is called, how its pack is shaped, and how to draw it.

    ``draw(scale, yaw_deg, pitch_deg)`` gives RGBA ``uint8 (H, W, 4)`` at ``scale`` pixels a centimetre.
    """

    label: str
    form: str
    draw: Body


def packs() -> list[Pack]:
    """All products, in a fixed order; their labels are distinct."""
    ready = forms()
    return [Pack(f"{d.brand} {d.product}", form, ready[form](d)) for form, d in _range()]


def _range() -> list[tuple[str, Design]]:
    cream: Colour = (250, 244, 226)
    white: Colour = (252, 252, 250)
    return [
        (
            "can",
            Design(
                "Zesta",
                "Orange",
                "sparkling 330 ml",
                "sunburst",
                "orange",
                (255, 170, 40),
                (255, 196, 84),
                (200, 50, 10),
            ),
        ),
        ("can", Design("Polar", "Cola", "ice cold since 1931", "wave", "snow", (206, 16, 32), (140, 4, 20), white)),
        (
            "slim can",
            Design("VOLT", "Energy", "250 ml", "diagonal", "bolt", (18, 20, 26), (52, 58, 70), (190, 240, 30)),
        ),
        (
            "slim can",
            Design("Limba", "Lemonade", "no sugar", "stripes", "lemon", (252, 240, 150), (240, 206, 40), (36, 110, 60)),
        ),
        (
            "water bottle",
            Design("Gletsch", "Water", "still", "wave", "mountain", (236, 246, 252), (40, 120, 200), (14, 50, 120)),
        ),
        (
            "milk carton",
            Design(
                "Almi", "Whole Milk", "3.8 % fat  1 l", "wave", "splash", (240, 248, 255), (70, 160, 220), (20, 70, 150)
            ),
        ),
        (
            "juice brick",
            Design(
                "Bosco", "Blueberry", "100 % juice", "medallion", "blueberries", (132, 96, 186), (60, 36, 120), white
            ),
        ),
        (
            "juice brick",
            Design(
                "Pomelo",
                "Orange Juice",
                "not from concentrate",
                "diagonal",
                "orange",
                (255, 250, 236),
                (250, 140, 30),
                (20, 110, 60),
            ),
        ),
        (
            "cereal box",
            Design(
                "SUNNYS",
                "Honey Rings",
                "whole grain",
                "sunburst",
                "bowl",
                (250, 206, 40),
                (255, 226, 120),
                (210, 30, 40),
            ),
        ),
        (
            "cereal box",
            Design("Oatery", "Oat Muesli", "750 g", "minimal", "wheat", (226, 206, 170), (98, 66, 36), (70, 44, 24)),
        ),
        (
            "crisp bag",
            Design(
                "Krax", "Sea Salt", "crinkle cut", "diagonal", "chips", (30, 90, 200), (14, 50, 140), (255, 220, 60)
            ),
        ),
        (
            "crisp bag",
            Design(
                "Krax", "Paprika", "crinkle cut", "sunburst", "chips", (206, 30, 34), (226, 70, 50), (255, 236, 150)
            ),
        ),
        (
            "food can",
            Design(
                "Rosso", "Tomato Soup", "ready in 3 minutes", "banner", "tomato", cream, (190, 24, 30), (120, 14, 20)
            ),
        ),
        (
            "flat can",
            Design("Mare", "Tuna", "in olive oil", "lying", "fish", (236, 228, 190), (18, 70, 130), (18, 70, 130)),
        ),
        (
            "food can",
            Design(
                "Kitty", "Salmon Feast", "for adult cats", "medallion", "cat", (120, 190, 180), (20, 100, 100), white
            ),
        ),
        (
            "jar",
            Design(
                "Beeren",
                "Strawberry",
                "extra jam",
                "gingham",
                "strawberry",
                (250, 226, 226),
                (206, 30, 50),
                (130, 10, 30),
            ),
        ),
        (
            "jar",
            Design(
                "Imker", "Honey", "from the meadow", "framed", "honeycomb", (250, 206, 96), (150, 84, 10), (96, 50, 6)
            ),
        ),
        (
            "tall jar",
            Design(
                "Spree", "Gherkins", "with dill", "banner", "gherkins", (244, 246, 220), (30, 110, 50), (20, 70, 30)
            ),
        ),
        (
            "glass bottle",
            Design(
                "Oliva",
                "Extra Vergine",
                "cold pressed",
                "framed",
                "olives",
                (246, 240, 214),
                (150, 130, 40),
                (50, 60, 20),
            ),
        ),
        (
            "squeeze bottle",
            Design(
                "Tomki", "Ketchup", "squeeze me", "banner", "tomato", (206, 24, 24), (250, 246, 230), (255, 250, 240)
            ),
        ),
        (
            "squeeze bottle",
            Design("Senfo", "Mustard", "medium hot", "bands", "daisy", (248, 200, 40), (150, 30, 20), (120, 20, 16)),
        ),
        (
            "sauce bottle",
            Design(
                "Fuego", "Hot Sauce", "very hot", "stripes", "chilli", (250, 214, 60), (240, 120, 30), (160, 16, 16)
            ),
        ),
        ("tube", Design("Denta", "Fresh Mint", "75 ml", "wave", "mint", white, (30, 160, 140), (10, 90, 110))),
        (
            "toothpaste box",
            Design("Bianco", "Whitening", "with fluoride", "lying", "tooth", (20, 60, 140), (210, 30, 50), white),
        ),
        (
            "tube",
            Design(
                "Lila", "Hand Cream", "lavender", "minimal", "lavender", (238, 228, 248), (126, 84, 170), (80, 44, 124)
            ),
        ),
        (
            "shampoo bottle",
            Design(
                "Aqua", "Shampoo", "for every day", "dots", "bubbles", (180, 230, 236), (110, 200, 216), (10, 90, 120)
            ),
        ),
        (
            "shampoo bottle",
            Design(
                "Citro", "Dish Soap", "lemon power", "sunburst", "lemon", (190, 224, 60), (214, 240, 110), (30, 110, 30)
            ),
        ),
        (
            "coffee bag",
            Design("Nero", "Espresso", "whole beans", "framed", "beans", (40, 28, 26), (206, 160, 80), (244, 226, 190)),
        ),
        (
            "tea box",
            Design("Cha", "Green Tea", "20 bags", "upright", "tea", (222, 236, 196), (64, 120, 44), (40, 80, 30)),
        ),
        (
            "bar",
            Design("Cacao", "Dark 70 %", "100 g", "lying", "chocolate", (70, 24, 84), (226, 180, 80), (250, 226, 170)),
        ),
        (
            "pasta box",
            Design("Nonna", "Farfalle", "cooks in 11 min", "bands", "farfalle", (24, 60, 150), (240, 200, 60), white),
        ),
        (
            "rice sack",
            Design("Jasmin", "Thai Rice", "1 kg", "stripes", "grains", (252, 250, 246), (210, 60, 70), (170, 20, 40)),
        ),
        (
            "cup",
            Design(
                "Yoli", "Cherry Yogurt", "150 g", "wave", "cherries", (255, 250, 252), (236, 130, 160), (190, 20, 60)
            ),
        ),
        (
            "tub",
            Design("Gelato", "Trio", "ice cream", "dots", "scoop", (252, 230, 236), (240, 170, 190), (110, 60, 50)),
        ),
        (
            "powder box",
            Design(
                "BLITZ",
                "Washing Powder",
                "40 washes",
                "sunburst",
                "burst",
                (30, 110, 210),
                (70, 150, 236),
                (20, 40, 120),
            ),
        ),
        (
            "sweet bag",
            Design(
                "Bonbo",
                "Fruit Sweets",
                "6 flavours",
                "dots",
                "sweets",
                (255, 244, 190),
                (120, 210, 180),
                (200, 30, 110),
            ),
        ),
        (
            "pouch",
            Design(
                "Popo",
                "Cherry Puree",
                "squeeze",
                "medallion",
                "cherries",
                (150, 200, 70),
                (230, 80, 60),
                (255, 255, 240),
            ),
        ),
    ]
