"""What a thing is used for."""

from moslora.data.everyday.tables.shapes import Facts

USED_FOR = Facts(
    kind="used-for",
    questions=("What is {} used for?", "What do people use {} for?", "What would you use {} for?"),
    items={
        "cutting things": """knife, a pair of scissors, saw, axe, chainsaw, a pair of shears, penknife, bread knife,
            guillotine, hacksaw""",
        "writing or drawing": "pen, pencil, crayon, ~chalk, felt-tip, quill, notepad, fountain pen, typewriter, ~ink",
        "telling the time": "clock, wristwatch, sundial, hourglass, alarm clock, pocket watch, cuckoo clock",
        "cleaning": """broom, mop, sponge, vacuum cleaner, ~soap, duster, ~detergent, ~bleach, dustpan, dishcloth,
            scrubbing brush, toothbrush""",
        "cooking": """oven, frying pan, saucepan, stove, microwave, grill, wok, pressure cooker, barbecue, toaster,
            casserole dish""",
        "sitting on": "chair, stool, sofa, bench, armchair, couch, deckchair, rocking chair, throne",
        "sleeping": "bed, mattress, hammock, cot, bunk bed, sleeping bag, cradle, pillow",
        "making music": """piano, guitar, violin, flute, drum, trumpet, harp, cello, xylophone, saxophone,
            tambourine, banjo, accordion, harmonica, a pair of cymbals""",
        "carrying things": """suitcase, basket, backpack, shopping bag, briefcase, rucksack, wheelbarrow, handbag,
            crate, trolley""",
        "giving light": "lamp, candle, torch, lantern, light bulb, chandelier, flashlight, headlight, lamppost",
        "drinking from": "mug, cup, goblet, straw, teacup, wine glass, tumbler, water bottle, tankard",
        "travelling": """car, bus, train, bicycle, taxi, aeroplane, ferry, motorbike, tram, horse and cart, minibus,
            helicopter""",
        "digging": "shovel, spade, trowel, pickaxe, excavator",
        "playing games": """chessboard, a pack of cards, frisbee, tennis racket, dartboard, football, jigsaw, doll,
            cricket bat, skipping rope, hockey stick""",
        "measuring": "ruler, tape measure, thermometer, barometer, protractor, speedometer, measuring jug, yardstick",
        "talking to someone far away": "telephone, walkie-talkie, megaphone, intercom, phone box, two-way radio",
        "seeing better": """telescope, a pair of binoculars, microscope, magnifying glass, a pair of glasses, a pair
            of spectacles, contact lens, monocle""",
        "fighting": "sword, spear, cannon, rifle, shield, tank, bayonet, catapult, pistol, grenade",
        "holding things together": """button, zip, buckle, ~glue, staple, safety pin, paper clip, ~string, ~sticky
            tape, shoelace, bolt, ~cement""",
        "keeping warm": """blanket, scarf, heater, radiator, sweater, duvet, fireplace, a pair of mittens, fur coat,
            cardigan""",
        "doing your hair": "comb, hairbrush, hairdryer, ~hairspray, ~hair gel, curling iron, hairpin",
        "paying for things": "~money, coin, credit card, banknote, cheque, debit card, dollar bill, ~cash",
        "growing plants": "greenhouse, flowerpot, ~compost, watering can, ~fertiliser, seed tray, window box",
        "washing yourself": "bathtub, shower, ~shampoo, ~bubble bath, flannel, washbasin, ~shower gel",
        "keeping dry in the rain": "umbrella, raincoat, poncho, waterproof jacket, rain hat",
    },
    clashes={
        "cutting things": "fighting, cooking, growing plants, doing your hair",
        "writing or drawing": "measuring, talking to someone far away",
        "telling the time": "measuring, playing games",
        "cleaning": "washing yourself, doing your hair, digging",
        "cooking": "keeping warm, giving light, measuring, drinking from",
        "sitting on": "sleeping, keeping warm",
        "sleeping": "keeping warm",
        "making music": "playing games, talking to someone far away",
        "carrying things": (
            "sitting on, travelling, digging, growing plants, paying for things, playing games, holding things "
            "together, drinking from"
        ),
        "giving light": "keeping warm, seeing better",
        "drinking from": "measuring",
        "travelling": "keeping dry in the rain, fighting",
        "digging": "growing plants, fighting",
        "playing games": "cutting things, fighting, paying for things",
        "measuring": "seeing better, holding things together",
        "holding things together": "doing your hair, keeping warm",
        "keeping warm": "keeping dry in the rain, growing plants",
        "doing your hair": "washing yourself",
        "growing plants": "washing yourself",
    },
)
