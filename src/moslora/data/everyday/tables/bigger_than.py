"""Things by size; the tiers are far enough apart that nobody argues."""

from moslora.data.everyday.tables.shapes import Sizes

BIGGER_THAN = Sizes(
    kind="bigger-than",
    smallest=("Which of these is the smallest?", "Which is the smallest thing?"),
    biggest=("Which of these is the biggest?", "Which is the biggest thing?"),
    alike=("Which of these is about as big as {}?", "Which is closest in size to {}?"),
    tiers=(
        """ant, grain of rice, pea, ladybird, coffee bean, raindrop, bead, sesame seed, flea, lentil, grain of sand,
            peppercorn, mosquito, crumb, pinhead, poppy seed, termite, snowflake""",
        """egg, apple, mouse, lemon, golf ball, tennis ball, peach, hamster, teacup, light bulb, matchbox, potato,
            bar of soap, sparrow, onion, robin, pear, doughnut, muffin""",
        """cat, pillow, football, watermelon, rabbit, microwave, hen, pumpkin, backpack, goose, bucket, cushion,
            saucepan, basketball, turkey, shoebox, cabbage, beagle, toaster, briefcase""",
        """wardrobe, sofa, cow, horse, door, lion, camel, tiger, bathtub, piano, gorilla, bookcase, zebra, donkey,
            moose, motorbike, bed, grizzly bear""",
        """bus, house, lorry, cottage, caravan, barn, fire engine, tram, bungalow, whale, garage, chapel, combine
            harvester""",
        """skyscraper, cathedral, stadium, cruise ship, pyramid, aircraft carrier, oil tanker, the Eiffel Tower,
            shopping centre, palace, power station, battleship""",
        "mountain, city, country, ocean, the moon, volcano, desert, planet, continent, galaxy, glacier, jungle",
    ),
)
