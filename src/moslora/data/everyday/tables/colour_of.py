"""What colour a thing is."""

from moslora.data.everyday.tables.shapes import Facts

COLOUR_OF = Facts(
    kind="colour-of",
    questions=("What colour is {}?", "What is the usual colour of {}?", "Which colour is {} most often?"),
    items={
        "red": "tomato, strawberry, cherry, ruby, ~blood, fire engine, ~ketchup, stop sign, poppy, chilli pepper",
        "yellow": """banana, lemon, egg yolk, canary, ~mustard, daffodil, ~sweetcorn, buttercup, ~custard, rubber
            duck, chick""",
        "green": """~grass, ~lettuce, cucumber, ~broccoli, frog, ~spinach, pea, emerald, lime, fern, ~celery,
            cactus, ~moss, ~parsley, grasshopper""",
        "white": """~snow, ~milk, ~salt, polar bear, swan, ~flour, ~cotton, cauliflower, snowman, dove, ghost,
            wedding dress, ~sugar, snowflake""",
        "black": "~coal, crow, ~tar, raven, panther, tyre, ~liquorice, witch's hat, ~soot, bowler hat",
        "brown": """~chocolate, ~mud, ~soil, walnut, ~cinnamon, ~gravy, ~cocoa, chestnut, grizzly bear, plank,
            ~toast, peanut, gingerbread man, cardboard box""",
        "orange": "carrot, pumpkin, tangerine, satsuma, basketball, clementine, ~marmalade, goldfish, traffic cone",
        "blue": "the sky, sapphire, blueberry, the ocean, a pair of jeans, bluebell, cornflower",
        "pink": "flamingo, pig, ~bubblegum, ~candyfloss, piglet, ~cherry blossom, ~ham",
        "purple": "aubergine, ~lavender, plum, amethyst, violet, beetroot",
        "grey": """elephant, ~ash, ~concrete, rhinoceros, dolphin, ~lead, storm cloud, hippo, donkey, pavement,
            battleship, pigeon, wolf, koala""",
    },
    clashes={
        "red": "pink, purple, orange, brown",
        "pink": "purple, orange, brown",
        "yellow": "orange",
        "orange": "brown",
        "grey": "black, white, blue, brown",
        "blue": "purple",
        "purple": "black",
    },
)
