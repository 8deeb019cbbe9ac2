"""What a thing is made from."""

from moslora.data.everyday.tables.shapes import Facts

MADE_OF = Facts(
    kind="made-of",
    questions=("What is {} made from?", "What is {} usually made from?", "Which of these is used to make {}?"),
    items={
        "wood": """table, wardrobe, log cabin, bookshelf, broomstick, rowing boat, tree house, matchstick, barrel,
            plank, cricket bat, rocking chair, canoe paddle, totem pole, toothpick, pencil, raft""",
        "glass": """window, jam jar, wine bottle, mirror, light bulb, fish bowl, test tube, lens, windscreen, wine
            glass, snow globe, crystal ball""",
        "metal": """coin, nail, key, sword, frying pan, anchor, horseshoe, tin can, padlock, screw, railway track,
            saucepan, bolt, needle, suit of armour, spanner, bell""",
        "paper": """newspaper, envelope, magazine, notebook, birthday card, poster, receipt, leaflet, comic,
            calendar, novel""",
        "cloth": """shirt, curtain, flag, handkerchief, skirt, pillowcase, bed sheet, blouse, apron, T-shirt, towel,
            a pair of trousers""",
        "leather": "saddle, belt, wallet, cowboy boot, holster, satchel, boxing glove, whip",
        "rubber": """tyre, eraser, wellington boot, hosepipe, elastic band, balloon, bath duck, squash ball, pencil
            eraser""",
        "stone": "castle, cathedral, pyramid, tombstone, the Great Wall of China, temple, statue, millstone",
        "clay": "flowerpot, brick, teapot, roof tile, jug, vase",
        "milk": "~cheese, ~butter, ~yoghurt, ~cream, ~ice cream, ~custard, ~cheddar, ~mozzarella",
        "flour": """~bread, cake, biscuit, pancake, ~pasta, croissant, bagel, muffin, doughnut, waffle, scone,
            ~pastry, ~spaghetti, bun, pretzel, baguette""",
        "grapes": "~wine, ~champagne, raisin, sultana, ~sherry",
        "sugar": "~candyfloss, lollipop, ~caramel, ~toffee, boiled sweet, ~icing, ~fudge, gobstopper",
        "frozen water": "igloo, snowman, iceberg, icicle, glacier, snowball, hailstone, snowflake, an ice cube",
        "meat": "sausage, hamburger, steak, ~bacon, ~ham, meatball, kebab, pork chop, ~salami, hot dog",
        "fruit": "~jam, ~marmalade, smoothie, ~cider, ~juice, sorbet",
        "eggs": "omelette, meringue, ~mayonnaise, frittata",
        "plastic": """shopping bag, credit card, comb, drinking straw, yoghurt pot, water bottle, toothbrush, hula
            hoop, bucket, frisbee, shower curtain""",
        "potatoes": "a plate of chips, crisp, ~mash, hash brown",
    },
    clashes={
        "wood": "leather, paper, metal, plastic, rubber, glass, stone",
        "glass": "metal, plastic, clay, stone, frozen water",
        "metal": "plastic, leather, clay, stone",
        "paper": "plastic, leather, cloth",
        "cloth": "leather, plastic",
        "leather": "plastic, rubber",
        "rubber": "plastic",
        "stone": "clay, plastic",
        "clay": "plastic",
        "milk": "sugar, eggs, flour, fruit, frozen water",
        "flour": "sugar, eggs, fruit, meat, potatoes",
        "grapes": "fruit, sugar",
        "sugar": "eggs, fruit",
        "fruit": "frozen water",
    },
)
